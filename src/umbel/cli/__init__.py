"""The command `umbel`: one module a command, imported when the command is named."""
