"""Build the messages of many calls; those of one task that differ in their arguments only, fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.app.calling import checked
from umbel.app.canvas.publishing import resolve
from umbel.app.client import Plan, set_parent
from umbel.app.ids import new_id
from umbel.app.publish_signals import announced, somebody_listens
from umbel.app.signature import Signature
from umbel.core.flow.shape import Kind, kind_of
from umbel.core.flow.starting import Call
from umbel.core.head import BatchHeads, HeadFields
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.message import Message
from umbel.core.protocol import embed_tail, encode_body, encode_scalars
from umbel.core.safe_repr import safe_repr

__all__ = ["PlainMembers", "build_many", "plain_calls", "plain_task"]

PlainCall = tuple[Sequence[Any], Mapping[str, Any]]


def build_many(app: Any, calls: Sequence[Call]) -> list[tuple[Message, Any]]:
    """Return the message of each call, with what its publish signals are to be told; None where nobody listens.

    Raises TypeError for arguments that do not fit the task, as sending one task does.
    """
    listening = somebody_listens()
    client = app.client
    found: list[tuple[Message, Any]] = []
    for call in calls:
        task, options = resolve(app, call)
        args: Sequence[Any] = call.args
        kwargs: Mapping[str, Any] = call.kwargs
        if not isinstance(task, str):
            options = dict(options)
            args, kwargs = checked(task, args, kwargs, options)
        plan, own = client.plan(task, args, kwargs, options)
        message, told = client.message(plan, args, kwargs, own), None
        if listening:
            message, told = announced(message, plan, (args, kwargs, own))
        found.append((message, told))
    return found


def plain_task(sigs: Sequence[Any]) -> str | None:
    """Return the task that all these signatures call, if they have no options: most large groups are like that."""
    first = sigs[0]
    if type(first) is not Signature or kind_of(first) is not Kind.TASK:
        return None
    name: str = first["task"]
    for sig in sigs:
        if type(sig) is not Signature or sig["task"] != name or sig["options"] or sig["subtask_type"] is not None:
            return None
    return name


class PlainMembers:
    """Messages of members of one group (or header) that are calls of one task without options of their own."""

    def __init__(self, app: Any, name: str, group_id: str, chord: Mapping[str, Any] | None) -> None:
        self._app = app
        self._task = app.tasks.get(name, name)
        self.name = name
        self._group_id = group_id
        self._embed = {"chord": chord} if chord is not None else None
        self._tail = embed_tail(self._embed or {})

    def plan(self, sig: Mapping[str, Any], options: Mapping[str, Any]) -> Plan | None:
        """Return the plan of such calls; None where each has to be built by itself."""
        if somebody_listens() or self.name.startswith(("celery.", "umbel.")):
            return None
        if not isinstance(self._task, str) and type(self._task).shadow_name.__module__ != "umbel.app.task":
            return None
        plan: Plan
        plan, own = self._app.client.plan(self._task, sig["args"], sig["kwargs"], options)
        if own or plan.options.expires is not None:
            return None
        if plan.template is None:
            shared = plan.options
            plan.template_for(encode_body((), {}, serializer=shared.serializer, compression=shared.compression))
        return plan

    def messages(self, plan: Plan, calls: Sequence[PlainCall], first: int) -> list[Message]:
        """Return the messages of calls, which are the members from index `first` on."""
        options, route, template, levels = plan.options, plan.route, plan.template, plan.levels
        assert template is not None
        app, task, embed = self._app, self._task, self._embed
        shared = HeadFields(
            "",
            group=self._group_id,
            timelimit=options.timelimit,
            origin=app.client.origin,
            ignore_result=options.ignore_result,
        )
        set_parent(shared)
        write = BatchHeads(template, shared, reply_to=app.thread_oid).write
        queue, exchange, priority, name = route.routing_key, route.exchange, options.priority or 0, plan.name
        serializer, compression = options.serializer, options.compression
        tail = self._tail if serializer == "json" and compression is None else None
        most = DEFAULT_LIMITS.message_bytes
        registered = not isinstance(task, str)
        found: list[Message] = []
        for index, (task_id, (args, kwargs)) in enumerate(zip(new_id.many(len(calls)), calls, strict=True), first):
            if registered:
                args, kwargs = checked(task, args, kwargs, {})
            body = encode_scalars(args, kwargs, tail) if tail is not None else None
            if body is None or len(body) > most:
                body = encode_body(args, kwargs, embed, serializer=serializer, compression=compression).data
            head = write(task_id, safe_repr(args, levels), safe_repr(kwargs, levels) if kwargs else "{}", index)
            found.append(Message(task_id, name, queue, head, body, exchange, priority))
        return found


def plain_calls(sigs: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[PlainCall]:
    """Return the arguments of signatures, with those of the whole in front unless they are immutable."""
    if not args and not kwargs:
        return [(sig["args"], sig["kwargs"]) for sig in sigs]
    return [
        (sig["args"], sig["kwargs"]) if sig["immutable"] else ((*args, *sig["args"]), {**sig["kwargs"], **kwargs})
        for sig in sigs
    ]
