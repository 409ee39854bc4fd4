"""Per-worker rate limits of tasks (`rate_limit`): one token bucket of capacity one for each task name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.core.message import Delivery
from umbel.worker.admission import Admitted

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?\s*$")


def rate(value: str | float | None) -> float:
    """Return a rate limit in runs per second; 0 means no limit. Celery: `"100/m"` is 1.666… per second."""
    if not value:
        return 0.0
    if isinstance(value, (int, float)):
        return float(value)
    match = _RATE.match(value)
    if match is None:
        raise ImproperlyConfigured(f"rate limit {value!r} cannot be read; write for example '10/s', '100/m' or '2/h'")
    return float(match[1]) / _UNITS[match[2] or "s"]


class RateLimits:
    """Says when each delivery of a limited task may run."""

    def __init__(self, app: Any, *, disabled: bool = False) -> None:
        self._app = app
        self._disabled = disabled
        self._rates: dict[str, float] = {}
        #: Task name → the time from which the next token is free.
        self._next: dict[str, float] = {}
        #: Task id → the time that was reserved for it.
        self._reserved: dict[str, float] = {}

    def set(self, task: str, value: str | float | None) -> None:
        """Change the limit of a task (control command `rate_limit`)."""
        self._rates[task] = rate(value)

    def limits(self, task: str) -> bool:
        """Tell whether there is a limit for this task."""
        return not self._disabled and bool(self._rate(task))

    def may_run(self, delivery: Delivery, now: float) -> bool:
        """Tell whether a delivery may run now; if so its token is taken."""
        limit = 0.0 if self._disabled else self._rate(delivery.task)
        if not limit:
            return True
        reserved = self._reserved.pop(delivery.id, None)
        if reserved is not None and reserved <= now + 0.05:
            return True
        if reserved is not None:
            self._reserved[delivery.id] = reserved
            return False
        free = self._next.get(delivery.task, 0.0)
        if free > now:
            return False
        self._next[delivery.task] = now + 1.0 / limit
        return True

    def reserve(self, delivery: Delivery, now: float) -> float:
        """Keep the next token for a delivery; return when it may run (epoch seconds)."""
        known = self._reserved.get(delivery.id)
        if known is not None:
            return known
        due = max(now, self._next.get(delivery.task, 0.0))
        self._next[delivery.task] = due + 1.0 / self._rate(delivery.task)
        self._reserved[delivery.id] = due
        return due

    def due(self, task_id: str) -> float:
        """Return when a held-back delivery may run."""
        return self._reserved.get(task_id, 0.0)

    def next_wait(self, parked: Iterable[Admitted]) -> float:
        """Return the seconds after which to look at the held-back deliveries again."""
        return 0.02 if any(True for _ in parked) else 3600.0

    def _rate(self, task: str) -> float:
        known = self._rates.get(task)
        if known is None:
            registered = self._app.tasks.get(task)
            value = getattr(registered, "rate_limit", None)
            if value is None:
                value = self._app.conf.task_default_rate_limit
            known = self._rates[task] = rate(value)
        return known
