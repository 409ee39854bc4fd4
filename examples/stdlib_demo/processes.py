"""Starting the demo's worker, and killing it without mercy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Worker:
    """An `umbel worker` in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path, executors: int) -> None:
        self._folder = folder
        self._executors = executors
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "umbel", "-A", "tasks", "worker"]
        options = ["--concurrency", str(self._executors), "--loglevel", "warning"]
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *options],
                cwd=HERE,
                env=os.environ | {"STDLIB_DEMO_FOLDER": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def gone(self) -> bool:
        """Whether the worker has ended by itself."""
        return self._process.poll() is not None

    def kill_all(self) -> int:
        """Send SIGKILL to each of the worker's processes at once; return how many there were."""
        family = [self._process.pid, *descendants(self._process.pid)]
        for process in family:
            kill(process)
        self._process.wait()
        return len(family)

    def start_again(self) -> None:
        """Start a new worker in the place of a dead one."""
        self._process = self._start()

    def stop(self) -> int:
        """Ask the worker to end, as a service manager would; return its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return -signal.SIGKILL


def kill(process: int) -> bool:
    """Send SIGKILL; tell whether the process was there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def descendants(parent: int) -> list[int]:
    """Children, grandchildren and so on of a process."""
    children: dict[int, list[int]] = {}
    for process, its_parent in parents():
        children.setdefault(its_parent, []).append(process)
    found, waiting = [], [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def parents() -> list[tuple[int, int]]:
    """Every process of the machine with its parent."""
    pairs = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text(errors="replace")
        except OSError:  # it has just ended
            continue
        pairs.append((int(entry.parent.name), int(text.rpartition(")")[2].split()[1])))
    if pairs:
        return pairs
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return [(int(child), int(above)) for child, above in map(str.split, listing.stdout.splitlines())]
