"""What happened, told by those it happened to: one JSON line per event, independent of the queue under test.

Every line is a single O_APPEND write, so that a process may be killed at any moment without tearing it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

#: Events: intended, returned, error (producer) · start, end (task) · kill, pause, resume, cut, mended,
#: drained (test) · revoked.
_FIELDS = ("what", "id", "t", "pid")


class Event(NamedTuple):
    """One line. `t` is CLOCK_MONOTONIC, which all processes of the machine share; `pid` who wrote it."""

    what: str
    id: str
    t: float
    pid: int
    more: dict[str, Any] = {}


def write(path: str | Path, what: str, id: str = "", at: float | None = None, **more: Any) -> Event:
    """Append one event, which happened `at` some time (default: now)."""
    event = Event(what, id, time.monotonic() if at is None else at, os.getpid(), more)
    line = json.dumps({**dict(zip(_FIELDS, event, strict=False)), **more}, separators=(",", ":")) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return event


def parse(line: str | bytes) -> Event:
    """Read one line back."""
    fields = json.loads(line)
    what, id, t, pid = (fields.pop(name) for name in _FIELDS)
    return Event(what, id, t, pid, fields)


class Journal:
    """Reads a journal that is still being written: every look parses only what is new."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._events: list[Event] = []
        self._offset = 0

    def events(self) -> list[Event]:
        """Return all events so far, in the order they were written."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._events += [parse(line) for line in whole.splitlines()]
        return self._events

    def ids(self, what: str) -> list[str]:
        """Return the ids of the events of one kind."""
        return [event.id for event in self.events() if event.what == what]

    def count(self, what: str) -> int:
        """Return how many events of one kind there are."""
        return sum(event.what == what for event in self.events())

    def write(self, what: str, id: str = "", at: float | None = None, **more: Any) -> Event:
        """Append one event, which happened `at` some time (default: now)."""
        return write(self.path, what, id, at, **more)
