"""Deliveries that may be copies: a broker that does not remember may deliver again what has run, or hold it twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from umbel.core.message import Delivery
from umbel.core.states import READY_STATES
from umbel.core.task_ids import is_drawn
from umbel.engine.seam import Store
from umbel.worker.admission import Admitted
from umbel.worker.crew import Crew


def is_doubtful(delivery: Delivery) -> bool:
    """Tell whether a delivery may be a copy. An id that somebody chose may rightly come again, for another call."""
    return delivery.doubtful and is_drawn(delivery.id)


def ended_before(store: Store | None, deliveries: Sequence[Delivery], now: float) -> set[str]:
    """Return the ids of those deliveries whose task has a final state: they must not run again.

    Looked at are doubtful ones, and those whose process died: it may have stored its result before.
    """
    doubtful = [d.id for d in deliveries if is_doubtful(d) or (d.crashes and is_drawn(d.id))]
    if not doubtful or store is None:
        return set()
    return {id_ for id_, record in store.get(doubtful, now).items() if record.state in READY_STATES}


def ended_meanwhile(store: Store | None, started: Sequence[Delivery], now: float) -> list[Admitted]:
    """Return the doubtful ones whose task has a final state by now, to be concluded.

    While another worker has a copy on the shelf this one cannot start, and what it comes to is stored before it leaves
    the shelf: so that of two copies which are acknowledged early one runs.
    """
    ended = ended_before(store, started, now)
    return [Admitted(delivery, "ended") for delivery in started if delivery.id in ended]


def sort_out(backlog: deque[Admitted], crew: Crew, store: Store | None, now: float) -> tuple[bool, list[Delivery]]:
    """Take out of the backlog what may be a copy of a message that is in hand here; mark what has ended meanwhile.

    Return whether doubtful deliveries are left, and those taken out: their first copy is what counts.
    """
    members = list(crew.members.values())
    known = {(a.delivery.id, a.delivery.generation) for member in members for a in list(member.assigned.values())}
    ended = ended_before(store, [item.delivery for item in backlog], now)
    left, dropped = False, []
    for _ in range(len(backlog)):
        item = backlog.popleft()
        delivery = item.delivery
        if is_doubtful(delivery) and not item.verdict:
            if (delivery.id, delivery.generation) in known:
                dropped.append(delivery)
                continue
            if delivery.id in ended:
                item = item._replace(verdict="ended")
            left = True
        known.add((delivery.id, delivery.generation))
        backlog.append(item)
    return left, dropped
