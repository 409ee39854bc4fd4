"""What a worker tells about the messages it has: the rows of Celery's `inspect active` and `inspect reserved`."""

from __future__ import annotations

import time
from typing import Any

from umbel.worker.admission import Admitted
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.feeder import Feeder


def active(crew: Crew) -> list[dict[str, Any]]:
    """Return a row for each delivery that runs now."""
    rows = []
    for member in list(crew.members.values()):
        current = member.slot.running()
        for assigned in list(member.assigned.values()):
            if runs(assigned, current):
                since = current[1] if current and not assigned.is_async else None
                rows.append(_running(assigned, member, since))
    return rows


def reserved(crew: Crew, feeder: Feeder) -> list[dict[str, Any]]:
    """Return a row for each delivery that this worker holds and has not started."""
    rows = []
    for member in list(crew.members.values()):
        current = member.slot.running()
        rows += [_waiting(a) for a in list(member.assigned.values()) if not runs(a, current)]
    return rows + [_waiting(item) for item in list(feeder.backlog)]


def runs(assigned: Assigned, current: tuple[int, float] | None) -> bool:
    """Tell whether a job has begun, `current` being what its executor says it runs."""
    return assigned.is_async or (current is not None and current[0] == assigned.number)


def _running(assigned: Assigned, member: Member, since: float | None) -> dict[str, Any]:
    row = _waiting(assigned)
    row["worker_pid"] = member.pid
    row["time_start"] = None if since is None else time.time() - (time.monotonic() - since)
    row["acknowledged"] = assigned.early
    return row


def _waiting(item: Admitted | Assigned) -> dict[str, Any]:
    """Name a delivery without its arguments: they may be secret, and nobody asked for them."""
    delivery = item.delivery
    return {
        "id": delivery.id,
        "name": delivery.task,
        "type": delivery.task,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": delivery.exchange,
            "routing_key": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.token > 1,
        },
        "worker_pid": None,
    }
