"""How far a long publish is, on standard error, where a person waits for it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

__all__ = ["Progress"]

#: Nothing is shown before this many seconds, and not more often than `_PAUSE`.
_PATIENCE = 1.0
_PAUSE = 0.1
_WIDTH = 30


class Progress:
    """A line that counts messages. `shown`: always, never, or (None) where standard error is a terminal.

    `total` is None where it is not known.
    """

    def __init__(self, total: int | None, shown: bool | None) -> None:
        self._total = total
        self._shown = shown
        self._count = 0
        self._began = self._next = 0.0
        self._drawn = False

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._next = self._began + (0.0 if self._shown else _PATIENCE)
        there = sys.stderr is not None
        self._shown = there and (sys.stderr.isatty() if self._shown is None else self._shown)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._drawn:
            self._draw(time.monotonic())
            sys.stderr.write("\n")

    def add(self, count: int) -> None:
        """So many more have been stored."""
        self._count += count
        if not self._shown:
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn = True
        rate = self._count / max(now - self._began, 0.001)
        if self._total:
            done = min(_WIDTH, _WIDTH * self._count // self._total)
            bar = f"[{'#' * done}{' ' * (_WIDTH - done)}] {self._count:,} of {self._total:,} sent"
        else:
            bar = f"{self._count:,} sent"
        sys.stderr.write(f"\r{bar}, {rate:,.0f} a second ")
        sys.stderr.flush()
