"""Kills the servers of a test process, and removes their folders, when that process has gone, however it went.

It reads its standard input, a pipe from the test process: `pid N`, `gone N`, `folder PATH`, `file PATH`. At its
end it cleans up; a server leads a process group of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

#: Seconds that killed servers have to go, before their folders are removed all the same.
PATIENCE = 10.0


def main() -> None:
    """Note what is told, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    noted: dict[str, set[str]] = {"pid": set(), "folder": set(), "file": set()}
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "gone":
            noted["pid"].discard(value)
        else:
            noted[word].add(value)
    groups = [int(pid) for pid in noted["pid"]]
    until = time.monotonic() + PATIENCE
    while sum(tell_group(group, signal.SIGKILL) for group in groups) and time.monotonic() < until:
        time.sleep(0.02)
    for folder in noted["folder"]:
        shutil.rmtree(folder, ignore_errors=True)
    for file in noted["file"]:
        Path(file).unlink(missing_ok=True)


def tell_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when nobody is in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
