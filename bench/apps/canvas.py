"""The workflows that are measured, written once for all who have Celery's canvas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Canvas(NamedTuple):
    """Two tasks of an app, and its chain, chord and group."""

    add: Any
    total: Any
    chain: Callable[..., Any]
    chord: Callable[..., Any]
    group: Callable[..., Any]

    def run_chord(self, count: int) -> object:
        """Add so many times, then add up; returns the sum."""
        header = (self.add.s(number, 1) for number in range(count))
        return self.chord(header)(self.total.s()).get(timeout=120)

    def run_chain(self, count: int) -> object:
        """Add one to what the step before gives, so many times; returns the last value."""
        return self.chain(self.add.s(0, 1), *(self.add.s(1) for _ in range(count - 1)))().get(timeout=120)

    def send_group(self, count: int) -> object:
        """Enqueue a group without waiting for it."""
        return self.group(self.add.s(number, 1) for number in range(count)).apply_async()

    def run_chords(self, length: int, width: int) -> object:
        """One chord after the other; returns the last sum."""
        step = [self.add.si(number, 1) for number in range(width)]
        chords = (self.chord(step, self.total.si([number])) for number in range(length))
        return self.chain(*chords)().get(timeout=300)
