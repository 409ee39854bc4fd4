"""Task ids: UUIDv7, so that an id tells when it was made; in order within a process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

__all__ = ["IdSource", "new_id"]

_BLOCK = 512
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class IdSource:
    """Makes ids from the wall clock (milliseconds), a counter and 60 random bits; safe in threads and after a fork."""

    def __init__(self, clock: Callable[[], float] = time.time, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0
        self._counter = 0
        self.renew()

    def renew(self) -> None:
        """Forget the random numbers at hand: what a forked child must do, lest it repeat its parent's ids."""
        self._lock = threading.Lock()
        self._random = ""
        self._position = 0

    def __call__(self) -> str:
        """Return a new id as text."""
        with self._lock:
            return self._next(int(self._clock() * 1000))

    def many(self, count: int) -> list[str]:
        """Return `count` new ids in order."""
        with self._lock:
            now = int(self._clock() * 1000)
            return [self._next(now) for _ in range(count)]

    def _next(self, milliseconds: int) -> str:
        position = self._position
        if position >= len(self._random):
            self._random = self._entropy(8 * _BLOCK).hex()
            position = 0
        self._position = position + 16
        tail = self._random[position : position + 16]
        if milliseconds > self._last:
            self._last = milliseconds
            self._counter = 0
        elif self._counter < 0xFFF:
            self._counter += 1
        else:
            self._last += 1
            self._counter = 0
        stamp = f"{self._last:012x}"
        return f"{stamp[:8]}-{stamp[8:]}-7{self._counter:03x}-{_VARIANT[tail[0]]}{tail[1:4]}-{tail[4:]}"


new_id = IdSource()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=new_id.renew)
