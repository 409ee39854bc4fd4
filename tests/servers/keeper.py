"""Kills the servers of a test process, and removes their folders, when that process has gone, however it went.

It reads its standard input, a pipe from the test process: `pid N`, `gone N`, `folder PATH`, `file PATH`. At its end it
kills every process that was named and is still the same, with its process group, and removes the folders and files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

#: Seconds that killed servers have to go, and their folders to be empty.
PATIENCE = 10.0


def main() -> None:
    """Note what is told, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    began: dict[int, str] = {}
    paths: dict[str, list[Path]] = {"folder": [], "file": []}
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "pid":
            began[int(value)] = state(int(value))[1]
        elif word == "gone":
            began.pop(int(value), None)
        else:
            paths[word].append(Path(value))
    until = time.monotonic() + PATIENCE
    left = [pid for pid, time_of_it in began.items() if state(pid)[1] == time_of_it]
    for pid in left:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    while any(state(pid)[0] not in "ZX" for pid in left) and time.monotonic() < until:
        time.sleep(0.02)
    for path in paths["file"]:
        path.unlink(missing_ok=True)
    for path in paths["folder"]:
        remove(path, until)


def state(pid: int) -> tuple[str, str]:
    """Return (state, time of its start) of a process, as the kernel writes them; ("", "") when it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def remove(folder: Path, until: float) -> None:
    """Remove a folder, again if a process that is just ending has written there meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
