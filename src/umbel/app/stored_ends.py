"""The end of a task as the store knows it, for a message that comes again although its task has run to its end.

Where messages and results are in two places, a worker may die between storing a final state and sending what follows
from it. Its message comes again; the state says what is left to be done.
"""

from __future__ import annotations

from typing import Any

from umbel.app.records import decode_meta, result_of
from umbel.core import states
from umbel.core.errors import OperationalError
from umbel.core.outcome import Kind, Outcome

__all__ = ["stored_outcome"]

_KINDS = {states.SUCCESS: Kind.SUCCESS, states.FAILURE: Kind.FAILURE, states.REVOKED: Kind.REVOKED}


def stored_outcome(app: Any, task_id: str, now: float) -> Outcome | None:
    """Return the outcome that a final state in the store speaks of; None where there is none.

    What cannot be read is a failure for those who wait for it. Raises OperationalError where the store is away.
    """
    if app.store is None:
        return None
    record = app.store.get([task_id], now).get(task_id)
    kind = None if record is None else _KINDS.get(record.state)
    if kind is None:
        return None
    try:
        meta = decode_meta(app.conf, record.meta)
        value, traceback = result_of(meta), meta.get("traceback")
    except OperationalError:
        raise
    except Exception as exc:  # noqa: BLE001 - written by somebody else, or with a serializer that is refused here
        return Outcome(Kind.FAILURE, exc=exc)
    if kind is Kind.SUCCESS:
        return Outcome(kind, value)
    return Outcome(kind, exc=value if isinstance(value, BaseException) else None, traceback=traceback)
