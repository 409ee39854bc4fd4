"""The queue of umbel's own tasks of workflows, which every worker consumes beside its own, and messages for it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from umbel.core.message import Message
from umbel.core.queues import Queue

__all__ = ["derived_id", "flow_message", "flow_queue", "flow_queue_name"]

_NAMESPACE = uuid.UUID("5b3f1f7c-6d0e-5c52-9a51-0d7d8a1c7e9b")


def derived_id(task_id: str, generation: int, position: str) -> str:
    """Return the id of a message that follows from a run: the same whenever the run is repeated."""
    return str(uuid.uuid5(_NAMESPACE, f"{task_id}:{generation}:{position}"))


def flow_queue_name(app: Any) -> str:
    """Return the name: the setting `workflow_queue`, or that of the default queue with `.umbel` behind it."""
    name: str | None = app.conf.get("workflow_queue")
    if name:
        return name
    default = app.conf.task_default_queue
    return f"{default.name if isinstance(default, Queue) else default}.umbel"


def flow_queue(app: Any) -> Queue:
    """Return the queue; it needs no entry in `task_queues`, even where queues are not made as they are named."""
    queues, name = app.amqp.queues, flow_queue_name(app)
    known: Queue | None = queues.get(name)
    return known if known is not None else queues.add(queues.new_missing(name))


def flow_message(
    app: Any,
    name: str,
    args: tuple[Any, ...],
    *,
    task_id: str,
    root_id: str | None = None,
    serializer: str = "json",
    known: str = "",
    countdown: float | None = None,
) -> Message:
    """Return the message of one of umbel's own tasks. Its arguments may be anything that a message before it held.

    `known` is a task that the workers know which are to run it, should several apps share the queue.
    """
    options: dict[str, Any] = {
        "task_id": task_id,
        "root_id": root_id or task_id,
        "parent_id": None,
        # All three, so that no route of `task_routes` adds the ones that are missing.
        "queue": flow_queue(app).name,
        "exchange": "",
        "routing_key": flow_queue_name(app),
        # Its arguments are those of other tasks, which are not to be seen.
        "argsrepr": "...",
        "serializer": serializer,
    }
    if countdown is not None:
        options["countdown"] = countdown
    origin = [app.main, known, round(time.time(), 3)]
    message: Message = app.client.build(app.tasks[name], args, {"origin": origin}, options)
    return message
