"""When a call is due and when it expires: countdown, eta and expires as users write them, as epoch seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any

__all__ = ["due_of", "epoch_of", "expires_of"]

logger = logging.getLogger("umbel.app")


def epoch_of(when: Any, zone: tzinfo, option: str) -> float:
    """Return a datetime or ISO text as epoch seconds; what has no offset is meant in `zone`."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise ValueError(f"{option}={when!r} is no ISO 8601 time, such as 2030-01-31T12:00:00+00:00") from None
    if not isinstance(when, datetime):
        raise TypeError(f"{option} must be a datetime or ISO text, not {when!r}")
    return (when if when.tzinfo is not None else when.replace(tzinfo=zone)).timestamp()


def due_of(options: Mapping[str, Any], now: float, zone: tzinfo) -> float:
    """Return when the call may start; 0 for at once. `countdown` wins over `eta` (Celery: the same)."""
    countdown = options.get("countdown")
    if countdown is not None:
        return now + _seconds(countdown, "countdown")
    eta = options.get("eta")
    return 0.0 if eta is None else epoch_of(eta, zone, "eta")


def expires_of(expires: Any, now: float, zone: tzinfo, name: str) -> float:
    """Return when the call is no longer wanted; 0 for never. Seconds count from now; below zero they are zero."""
    if expires is None:
        return 0.0
    if isinstance(expires, (datetime, str)):
        return epoch_of(expires, zone, "expires")
    seconds = _seconds(expires, "expires")
    if seconds < 0:
        logger.warning("%s: expires=%s is in the past and is taken as 0, so the task will not run", name, expires)
        seconds = 0.0
    return now + seconds


def _seconds(value: Any, option: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option} must be a number of seconds, not {value!r}")
    return float(value)
