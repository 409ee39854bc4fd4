"""Which time limits a run has: the message's own before the task's before the worker's."""

from __future__ import annotations

import re
from typing import Any

from umbel.worker.options import WorkerOptions

_NONE = b'"timelimit":[null,null]'
_PAIR = re.compile(rb'"timelimit":\s*\[\s*([\d.]+|null)\s*,\s*([\d.]+|null)\s*\]')


def unlimited(head: bytes) -> bool:
    """Tell whether a message's head says, in the usual spelling, that it sets no time limits."""
    return _NONE in head


def message_limits(head: bytes) -> tuple[float | None, float | None]:
    """Return the (hard, soft) limits that a message's head carries, in seconds, without decoding it."""
    if _NONE in head:
        return None, None
    match = _PAIR.search(head)
    if match is None:
        return None, None
    return _number(match[1]), _number(match[2])


def hard_limit_of(app: Any, task_name: str, head: bytes, options: WorkerOptions) -> float | None:
    """Return the hard time limit of one run in seconds, None for none."""
    return _first(message_limits(head)[0], app.tasks.get(task_name), "time_limit", options.time_limit)


def soft_limit_of(app: Any, task_name: str, head: bytes, options: WorkerOptions) -> float | None:
    """Return the soft time limit of one run in seconds, None for none."""
    return _first(message_limits(head)[1], app.tasks.get(task_name), "soft_time_limit", options.soft_time_limit)


def _first(of_message: float | None, task: Any, name: str, of_worker: float | None) -> float | None:
    if of_message is not None:
        return of_message
    of_task: float | None = getattr(task, name, None)
    return of_worker if of_task is None else of_task


def _number(text: bytes) -> float | None:
    try:
        return None if text == b"null" else float(text)
    except ValueError:
        return None
