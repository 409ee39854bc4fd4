"""What the log says about the outcome of a task."""

from __future__ import annotations

import logging

from umbel.app.exceptions_io import text_of
from umbel.app.handover import HandedOver
from umbel.app.running import Call
from umbel.app.traits import classes_of
from umbel.core.outcome import Kind, Outcome

__all__ = ["is_expected", "line_of"]

logger = logging.getLogger("celery.worker")


def is_expected(call: Call, outcome: Outcome) -> bool:
    """Tell whether an outcome is a failure of the kinds that the task names in `throws`."""
    return outcome.kind is Kind.FAILURE and isinstance(outcome.exc, classes_of(call.task, "throws"))


def line_of(call: Call, outcome: Outcome) -> str:
    """Return the log line of an outcome, in Celery's words; values and arguments are never in it.

    That of a success, which is nearly every one, is not made where nobody will see it.
    """
    kind = outcome.kind
    if kind is Kind.SUCCESS and not logger.isEnabledFor(logging.INFO):
        return ""
    head = f"Task {call.traits.name}[{call.id}]"
    if kind is Kind.SUCCESS:
        return f"{head} succeeded in {outcome.runtime}s"
    exc = outcome.exc
    if kind is Kind.RETRY:
        return f"{head} retry: {outcome.value if outcome.value is not None else text_of(exc)}" if exc else head
    if kind is Kind.IGNORE:
        return f"{head} ignored"
    if isinstance(exc, HandedOver):
        return "" if exc.quiet else f"{head} {exc}"
    if kind is Kind.REQUEUE:
        return f"{head} rejected: put back into its queue"
    if kind is Kind.REVOKED:
        return f"Discarding revoked task: {call.traits.name}[{call.id}]" if exc else head
    if exc is not None and is_expected(call, outcome):
        return f"{head} raised expected: {text_of(exc)}"
    word = "rejected" if kind is Kind.REJECT else "raised unexpected"
    trace = f"\n{outcome.traceback}" if outcome.traceback else ""
    return f"{head} {word}: {text_of(exc) if exc else kind.value}{trace}"
