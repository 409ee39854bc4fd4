"""Kills the servers of a test process, and removes their folders, when that process has gone, however it went.

It reads its standard input, a pipe from the test process: `pid N`, `gone N`, `folder PATH`. At its end it cleans up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    """Note what is told, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noted: dict[str, set[str]] = {"pid": set(), "folder": set()}
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "gone":
            noted["pid"].discard(value)
        else:
            noted[word].add(value)
    for pid in noted["pid"]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for folder in noted["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
