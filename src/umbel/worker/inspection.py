"""What a worker tells about the messages it has: the rows of Celery's `inspect active` and `inspect reserved`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from umbel.core.queues import Queue
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


def scheduled(feeder: Feeder) -> list[dict[str, Any]]:
    """Return a row for each delivery that is held back here because of a rate limit.

    Celery's workers hold tasks with an eta as well; umbel leaves those in the broker until they are due.
    """
    return [
        {
            "eta": datetime.fromtimestamp(due, UTC).isoformat(),
            "priority": item.delivery.priority,
            "request": _waiting(item),
        }
        for item, due in feeder.held_back()
    ]


def query(crew: Crew, feeder: Feeder, ids: Iterable[str]) -> dict[str, list[Any]]:
    """Return {id: [state, row]} of those tasks that are here. Celery: `query_task`."""
    rows = {row["request"]["id"]: ["scheduled", row["request"]] for row in scheduled(feeder)}
    rows |= {row["id"]: ["reserved", row] for row in reserved(crew, feeder)}
    rows |= {row["id"]: ["active", row] for row in active(crew)}
    return {one: rows[one] for one in ids if one in rows}


def task_line(task: Any, name: str, items: Iterable[str]) -> str:
    """Return a task's name and, in brackets, those of the attributes `items` that it has."""
    values = [(item, getattr(task, str(item), None)) for item in items]
    told = [f"{item}={value}" for item, value in values if value is not None]
    return f"{name} [{' '.join(told)}]" if told else name


def queue_row(queue: Queue) -> dict[str, Any]:
    """Return a queue with its exchange and bindings as plain values."""
    row = queue.as_dict()
    row["exchange"] = queue.exchange.as_dict()
    row["bindings"] = [
        {"exchange": bound.exchange.name if bound.exchange else "", "routing_key": bound.routing_key}
        for bound in queue.bindings
    ]
    return row


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
