"""Where a task is, more finely than Celery's states can say: the store and the broker are asked together."""

from __future__ import annotations

import enum
from typing import Any

from umbel.core import states
from umbel.core.message import Stage

__all__ = ["Lifecycle", "age_of", "lifecycle_of"]


class Lifecycle(enum.StrEnum):
    """The stations of a task; what Celery calls PENDING is one of the first four or EXPIRED."""

    #: Neither broker nor store knows the id.
    UNKNOWN = "unknown"
    #: Waits for its time (`eta`, `countdown`, the next retry).
    SCHEDULED = "scheduled"
    #: Waits for a worker.
    QUEUED = "queued"
    #: A worker holds it and has not said that it runs.
    LEASED = "leased"
    #: It runs, as far as one can know: stored STARTED or a state of the task's own.
    STARTED = "started"
    #: Failed, and the next attempt is on its way.
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REVOKED = "revoked"
    #: Given up without a stored result; it is among the dead letters.
    DEAD = "dead"
    #: The id is older than results are kept, and nobody knows it any more.
    EXPIRED = "expired"


_STORED = {
    states.SUCCESS: Lifecycle.SUCCEEDED,
    states.FAILURE: Lifecycle.FAILED,
    states.REVOKED: Lifecycle.REVOKED,
    states.RETRY: Lifecycle.RETRYING,
    states.RECEIVED: Lifecycle.LEASED,
    states.PENDING: Lifecycle.QUEUED,
}
_STAGES = {
    Stage.SCHEDULED: Lifecycle.SCHEDULED,
    Stage.QUEUED: Lifecycle.QUEUED,
    Stage.LEASED: Lifecycle.LEASED,
    Stage.STARTED: Lifecycle.STARTED,
    Stage.DEAD: Lifecycle.DEAD,
}


def age_of(task_id: str, now: float) -> float | None:
    """Return how old a UUIDv7 is, in seconds; None for any other id."""
    if len(task_id) != 36 or task_id[14] != "7":
        return None
    try:
        milliseconds = int(task_id[:8] + task_id[9:13], 16)
    except ValueError:
        return None
    return now - milliseconds / 1000


def lifecycle_of(app: Any, task_id: str, now: float) -> Lifecycle:
    """Tell where a task is. A stored final state is the truth; before that the broker knows better."""
    store = app.store
    record = store.get([task_id], now).get(task_id) if store is not None else None
    if record is not None and record.state in states.READY_STATES:
        return _STORED[record.state]
    stage = app.broker.find([task_id], now).get(task_id)
    if stage is None and store is not None:
        # It may have ended between the two questions.
        record = store.get([task_id], now).get(task_id)
    if record is not None:
        stored = _STORED.get(record.state, Lifecycle.STARTED)
        if stored is Lifecycle.RETRYING and stage in (Stage.LEASED, Stage.STARTED, Stage.DEAD):
            return _STAGES[stage]
        return stored
    if stage is not None:
        return _STAGES[stage]
    age = age_of(task_id, now)
    keep = app.conf.result_expires
    if age is not None and keep and age > keep:
        return Lifecycle.EXPIRED
    return Lifecycle.UNKNOWN
