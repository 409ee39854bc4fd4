"""Write docs/reference/cli.md from the commands themselves; `--check` only tells whether it is up to date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from umbel.cli.main import COMMANDS, NOT_YET, umbel
from umbel.cli.worker_options import NOT_SUPPORTED

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

HEAD = """# Command line

This page is written by `scripts/gen_cli_reference.py` from the commands themselves.

`umbel [GLOBAL OPTIONS] COMMAND [OPTIONS]`; `python -m umbel` and `app.start()` are the same. Global options stand
before the command.

`-A` names the app: `module`, `module:attribute` or a package. In a module the app is its attribute `app`, `celery` or
`umbel`; a package is also looked through for modules `celery` and `umbel`; else any app in the module is taken.
The working directory is looked in first. Commands that run no task (`call`, `result`, `status`, `inspect`, `control`,
`queues`, `purge`, `dead`) need no `-A` where `-b` or `UMBEL_BROKER_URL` names the broker.

Every option can be given in the environment too: `UMBEL_<COMMAND>_<OPTION>`, else `CELERY_<COMMAND>_<OPTION>`, for
example `UMBEL_WORKER_CONCURRENCY=4`; global ones as `UMBEL_<OPTION>`, for example `UMBEL_APP`.

Packages can add commands with entry points in the group `umbel.commands` (`celery.commands` is read too).

| exit status | means |
|---|---|
| 0 | done; a worker that TERM has stopped |
| 1 | failure; a worker that INT or QUIT has stopped |
| 2 | the command line is wrong, or the app cannot be found |
| 69 | the broker cannot be reached, or no worker answered |
| 73 | another worker holds the pidfile |

## Logs

A worker logs to stderr, or into `--logfile`: with `%i` or `%I` in its name each process has a file of its own (0
are supervisor and consumer, 1 is the first executor). A file that is moved away is opened anew, so logrotate needs
no signal.

Lines are written as `worker_log_format` says, those of `get_task_logger(__name__)` as `worker_task_log_format`
says, which may hold `%(task_name)s` and `%(task_id)s`. Control characters and such as turn the direction of text
appear as `\\x..`, and every line of a message but the first is indented, so that a line at the margin always
begins a record. What tasks print is logged line by line under `celery.redirected` (`worker_redirect_stdouts`).

With `--json-logs` (`worker_log_json`) each record is one JSON object on a line: `time` (UTC), `level`, `logger`,
`process`, `pid`, `message`; where there are any `task_id`, `task_name`, `exception`, `stack`, and in `extra` what
the program added.

Arguments and results are in no line that umbel writes by itself. To set logging up yourself, connect to the signal
`setup_logging`; to add to it, to `after_setup_logger` and `after_setup_task_logger`.
"""


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    rows = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    if rows:
        yield "\n| option | meaning |\n|---|---|"
        yield from (
            f"| `{flags.replace('|', chr(92) + '|')}` | {text.replace('|', chr(92) + '|')} |" for flags, text in rows
        )


def _section(command: click.Command, parent: click.Context, level: str) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = command.get_usage(context).removeprefix("Usage: ")
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield f"\n{level} {context.command_path}\n\n{text}\n\n```\n{' '.join(usage.split())}\n```"
    yield from _options(command, context)
    if command.epilog:
        yield "\n```\n" + command.epilog.removeprefix("\b\n") + "\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _section(inner, context, level + "#")


def _refused() -> Iterator[str]:
    yield "\n## What is not there\n\nOptions of `celery worker` that are refused:\n\n| option | instead |\n|---|---|"
    yield from (f"| `{', '.join(refused.flags)}` | {refused.advice} |" for refused in NOT_SUPPORTED)
    yield "\nCommands of `celery`:\n\n| command | instead |\n|---|---|"
    yield from (f"| `{name}` | {advice} |" for name, advice in NOT_YET.items())


def render() -> str:
    """Return the whole page."""
    root = click.Context(umbel, info_name="umbel", max_content_width=100)
    parts = [HEAD, "\n## Global options", *_options(umbel, root)]
    for name in COMMANDS:
        command = umbel.get_command(root, name)
        assert command is not None
        parts.extend(_section(command, root, "##"))
    parts.extend(_refused())
    return "\n".join(parts) + "\n"


def main(argv: list[str]) -> int:
    """Write or check the page; return the exit status."""
    text = render()
    if "--check" in argv:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is out of date: run python scripts/gen_cli_reference.py", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
