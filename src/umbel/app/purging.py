"""Emptying queues: a message that others wait for ends as revoked, so that no workflow waits for ever."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any

from umbel.app.conclusions import Consequences, consequences
from umbel.app.flow_queue import flow_queue_name
from umbel.app.records import record_of
from umbel.core import states
from umbel.core.errors import NotSupportedError, OperationalError, TaskRevokedError
from umbel.core.head_reader import reply_to_of
from umbel.core.message import Delivery, Settlement
from umbel.engine.seam import Lease
from umbel.engine.settle import commit

__all__ = ["purge", "purged_queues"]

#: Messages of one step, how long they are held for it, and how long to wait for a broker that is asked (seconds).
_STEP, _HELD, _WAIT = 1000, 60.0, 0.2
#: How often in a row a broker that sends messages by itself may bring nothing: of what it says that it has, and of what
#: may be on its way.
_PATIENCE, _ON_THE_WAY = 50, 5
_NOTHING = Consequences()


def purged_queues(app: Any) -> list[str]:
    """Return the queues that a purge is about where nobody says which: all that the app knows but umbel's own."""
    return sorted({queue.name for queue in app.amqp.queues.values()} - {flow_queue_name(app)})


def purge(app: Any, queues: Collection[str]) -> int:
    """Delete the messages that wait in queues, also those that are not due; return how many.

    A step of a chain, a member of a chord and a task with errbacks count as revoked: what follows them hears of it.
    RabbitMQ does not give out what waits for its time: that stays. Raises NotSupportedError for the queue of umbel's
    own tasks, without which chords that are complete would never go on.
    """
    flow = flow_queue_name(app)
    if flow in queues:
        raise NotSupportedError(f"the queue {flow} drives workflows and is not to be purged: name those of your tasks")
    lease = Lease(tuple(queues), f"purge:{uuid.uuid4().hex}", _STEP, _HELD)
    try:
        return _purge(app, lease)
    finally:
        with suppress(OperationalError):
            app.broker.extend(lease.owner, 0.0, time.time())


def _purge(app: Any, lease: Lease) -> int:
    broker, queues = app.broker, lease.queues
    count = in_vain = 0
    for take in (partial(broker.lease, wait=_WAIT), broker.lease_scheduled):
        # No more than waits now, however fast more comes.
        most = _waiting(app, queues)
        while most > 0:
            now = time.time()
            deliveries = take(lease, now)
            if not deliveries:
                in_vain += 1
                if _is_all(app, queues, in_vain):
                    break
                continue
            in_vain = 0
            stale = commit(app.engine, app.engine, lease.owner, [_end(app, one, now) for one in deliveries], now)
            most -= len(deliveries)
            count += len(deliveries) - len(stale)
    if in_vain > _PATIENCE:
        # It gives them to others only.
        count += broker.purge(list(queues))
    return count


def _is_all(app: Any, queues: Collection[str], in_vain: int) -> bool:
    """Tell whether nothing more is to be expected of a broker that has brought nothing so many times."""
    if app.engine.caps.counts:
        return True
    return in_vain > _PATIENCE or (in_vain > _ON_THE_WAY and not _waiting(app, queues))


def _waiting(app: Any, queues: Collection[str]) -> int:
    counts = app.broker.depth(list(queues), time.time())
    return sum(depth.ready + depth.scheduled for depth in counts.values())


def _end(app: Any, delivery: Delivery, now: float) -> Settlement:
    exc = TaskRevokedError("purged")
    others = consequences(app, delivery, exc, states.REVOKED)
    record = None
    if others != _NOTHING and app.store is not None:
        record = record_of(app, delivery.id, states.REVOKED, exc, now=now, reply_to=reply_to_of(delivery.head))
    return Settlement(delivery.tag, delivery.token, record=record, publish=others.publish, parts=others.parts)
