"""A clock that a test turns by hand."""

from __future__ import annotations


class ManualClock:
    """Time that stands still until `advance`; wall clock and monotonic seconds move together."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._passed = 0.0

    def now(self) -> float:
        """Return the wall clock in epoch seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._passed

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass; return the new wall clock."""
        if seconds < 0:
            raise ValueError("time does not go back; jump() sets the wall clock alone")
        self._now += seconds
        self._passed += seconds
        return self._now

    def jump(self, now: float) -> None:
        """Set the wall clock, as an administrator or NTP does; monotonic time does not notice."""
        self._now = now
