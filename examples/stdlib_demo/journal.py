"""A file that every run of a task writes to, so that what happened can be checked without asking umbel."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path


class Journal:
    """The writing side: one line a call, in a single append, so that lines of many processes never mix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, number: int) -> None:
        """Note that job `number` was "started" or "finished" by this process now."""
        line = f"{event} {number} {os.getpid()} {time.time():.6f}\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


@dataclass
class History:
    """The reading side: what the journal tells so far."""

    path: Path
    starts: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    running: dict[int, int] = field(default_factory=dict)
    last_end: float = 0.0
    _offset: int = 0

    def read_on(self) -> None:
        """Take in the lines written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            news = file.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            event, number, process, moment = line.split()
            self._note(event, int(number), int(process), float(moment))

    def _note(self, event: str, number: int, process: int, moment: float) -> None:
        counts = self.starts if event == "started" else self.ends
        counts[number] = counts.get(number, 0) + 1
        if event == "started":
            self.running[process] = number
        else:
            self.running.pop(process, None)
            self.last_end = max(self.last_end, moment)

    @property
    def run_again(self) -> int:
        """How many runs were not the first of their job."""
        return sum(self.starts.values()) - len(self.starts)
