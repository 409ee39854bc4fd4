"""Counting the Python calls of umbel's own code, in every thread of every process that comes after `start`."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import umbel

OWN = str(Path(umbel.__file__).parent) + os.sep
#: A process writes its count down whenever it has grown by this many.
STEP = 100


class Counter:
    """Calls in this process so far, kept also in a file named after the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = 0
        self._handle = -1
        self._own: dict[CodeType, bool] = {}
        self.by_name: dict[str, int] = {}
        self.calls = 0

    def hook(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Take note of a call; Python calls this at every call and return."""
        if event != "call":
            return
        code = frame.f_code
        own = self._own.get(code)
        if own is None:
            own = self._own[code] = code.co_filename.startswith(OWN)
        if own:
            self._count(code)

    def _count(self, code: CodeType) -> None:
        if self._process != os.getpid():  # the first call after a fork
            self._process, self.calls, self.by_name = os.getpid(), 0, {}
            path = self._folder / f"calls.{self._process}"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self.calls += 1
        name = f"{code.co_filename.removeprefix(OWN)}:{code.co_qualname}"
        self.by_name[name] = self.by_name.get(name, 0) + 1
        if self.calls % STEP == 0:
            os.pwrite(self._handle, f"{self.calls:>20}\n".encode() + self._most_called(), 0)

    def _most_called(self) -> bytes:
        rows = sorted(self.by_name.items(), key=lambda row: -row[1])
        return "".join(f"{count:>10} {name}\n" for name, count in rows).encode()


def start(folder: Path) -> Counter:
    """Count from now on, in this thread and all that are started later, after a fork too."""
    counter = Counter(folder)
    threading.setprofile(counter.hook)
    sys.setprofile(counter.hook)
    return counter
