"""The message of a step of a chain: nearly always a task with an id, plain arguments, and the steps after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from umbel.core.flow.late import Step
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.message import Message
from umbel.core.options import check_name
from umbel.core.protocol import encode_scalars, steps_tail

__all__ = ["Origin", "step_message"]

#: The options of a step that has none of its own.
_ID = frozenset({"task_id"})


class Origin(NamedTuple):
    """What a step has from the one before it."""

    root_id: str | None
    parent_id: str | None
    #: Who asks for the results, where these travel as messages.
    reply_to: str | None


def step_message(
    app: Any,
    signature: Mapping[str, Any],
    call: tuple[Sequence[Any], Mapping[str, Any]],
    origin: Origin,
    following: Sequence[Step],
) -> Message | None:
    """Return the message of a step with these arguments; None where only `Client.build` can make it.

    The steps after it are taken as they travel, unread.
    """
    task, options, (args, kwargs) = app.tasks.get(signature["task"]), signature["options"] or {}, call
    plan = None if task is None else app.client.quick_plan(task)
    if plan is None or plan.template is None or options.keys() != _ID or type(options["task_id"]) is not str:
        return None
    static = plan.options
    if static.serializer != "json" or static.compression is not None or static.expires is not None:
        return None
    steps = [step for step in following if type(step) is Raw]
    body = encode_scalars(args, kwargs, steps_tail(steps)) if len(steps) == len(following) else None
    if body is None or len(body) > DEFAULT_LIMITS.message_bytes:
        return None
    task_id: str = options["task_id"]
    check_name("task_id=", task_id)
    fields = app.client.fields(plan, task_id, args, kwargs)
    fields.root_id, fields.parent_id = origin.root_id, origin.parent_id
    head = plan.template.write(fields, reply_to=origin.reply_to or app.thread_oid)
    route = plan.route
    return Message(task_id, plan.name, route.routing_key, head, body, route.exchange, static.priority or 0)
