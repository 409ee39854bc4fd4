"""`python -m umbel`: the same as the command `umbel`."""

from __future__ import annotations

import sys

from umbel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
