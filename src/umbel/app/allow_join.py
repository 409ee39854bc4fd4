"""Whether waiting for a result is allowed here: not inside a task, whose executor the result may need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from umbel.app import request as requests

__all__ = ["allow_join_result", "assert_will_not_block", "denied_join_result"]

_allowed: ContextVar[bool | None] = ContextVar("umbel_join_allowed", default=None)

_REFUSAL = (
    "waiting for a result inside a task can block every executor for ever; let the other task call back "
    "instead (link=...), or, if it certainly runs elsewhere, wait within `with allow_join_result():` "
    "or pass disable_sync_subtasks=False"
)


def assert_will_not_block() -> None:
    """Raise RuntimeError where waiting for a result is not allowed."""
    allowed = _allowed.get()
    if allowed is None:
        allowed = not _inside_worker_task()
    if not allowed:
        raise RuntimeError(_REFUSAL)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow waiting for results in this block, also inside a task."""
    yield from _set(True)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse waiting for results in this block."""
    yield from _set(False)


def _set(allowed: bool) -> Iterator[None]:
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def _inside_worker_task() -> bool:
    frame = requests.top()
    while frame is not None:
        if not frame.request.called_directly and not frame.request.is_eager:
            return True
        frame = frame.outer
    return False
