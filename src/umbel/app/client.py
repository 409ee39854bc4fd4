"""From a call to a stored message: options are merged once, the head is written from a template, the rest is bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from umbel.app import request as requests
from umbel.app.ids import new_id
from umbel.app.publish_signals import announce_sent, announced, somebody_listens
from umbel.app.sending import declare_first, publish
from umbel.app.task_options import own_option
from umbel.app.timing import due_of, expires_of
from umbel.core.flow.late import read_steps
from umbel.core.head import BatchHeads, HeadFields, HeadTemplate, format_time
from umbel.core.message import Message
from umbel.core.options import ROUTING, TASK_DEFAULTS, SendOptions, check_name, check_options, check_time_limits
from umbel.core.protocol import EncodedBody, encode_body
from umbel.core.queues import Broadcast, Queue
from umbel.core.routing import Route
from umbel.core.safe_repr import safe_repr
from umbel.engine.clock import SYSTEM_CLOCK, Clock

__all__ = ["Client", "Plan", "set_parent"]

_EMBED = ("chain", "chord")
_FOLLOWERS = (*_EMBED, "link", "link_error")
_NOTHING: Mapping[str, Any] = {}
#: What a queue's first declaration says of it.
_DESCRIPTION = ("expires", "message_ttl", "max_length", "max_length_bytes", "max_priority", "queue_arguments")
#: Plans that one task keeps; more combinations of options are worked out anew each time.
_MOST_PLANS = 256


class Plan:
    """How calls of one task with the same static options are sent: route, merged options, head template."""

    __slots__ = ("defaults", "levels", "name", "options", "route", "task", "template", "version", "zone")

    def __init__(self, task: Any, name: str, route: Route, options: SendOptions) -> None:
        self.task = task
        self.name = name
        self.route = route
        self.options = options
        #: Options of single calls that the route gives (countdown, headers …).
        self.defaults: dict[str, Any] = {}
        self.template: HeadTemplate | None = None
        self.version = -1
        self.levels = 3
        self.zone: tzinfo | None = None

    def template_for(self, body: EncodedBody) -> HeadTemplate:
        """Return the template, made from the first body: serializer and compression are the same for all."""
        if self.template is None:
            self.template = HeadTemplate(
                self.name,
                content_type=body.content_type,
                content_encoding=body.content_encoding,
                compression=body.compression,
                exchange=self.route.exchange,
                routing_key=self.route.routing_key,
                priority=self.options.priority,
                delivery_mode=self.options.delivery_mode,
            )
        return self.template


class Client:
    """The whole send path of one app."""

    def __init__(self, app: Any, clock: Clock = SYSTEM_CLOCK) -> None:
        self._app = app
        self._clock = clock
        self._origin = ("", 0)
        self._named: dict[str, dict[Any, Plan]] = {}

    # --- messages ----------------------------------------------------------------------------------------------

    def build(
        self, task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> Message:
        """Return the message of a call without sending it. `task` is a task or a name; `options` as `apply_async`."""
        args, kwargs = args or (), kwargs or {}
        plan, call = self.plan(task, args, kwargs, options)
        return self.message(plan, args, kwargs, call)

    def plan(
        self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Plan, Mapping[str, Any]]:
        """Return the plan of a call, and those of its options that are its own."""
        if options:
            stamps = options.get("stamped_headers") or ()
            check_options(options, stamps)
            static = tuple((name, options[name]) for name in options if name in ROUTING)
            call = {name: value for name, value in options.items() if name not in ROUTING}
        else:
            static, call = (), {}
        if "priority" not in options and self._app.conf.task_inherit_parent_priority:
            inherited = _parent_priority()
            static = (*static, ("priority", inherited)) if inherited is not None else static
        plan = self._find_plan(task, static, args, kwargs)
        return plan, {**plan.defaults, **call} if plan.defaults else call

    def quick_plan(self, task: Any) -> Plan | None:
        """Return the plan of calls without options if it is at hand, so that most calls look nothing up."""
        plan: Plan | None = task.__dict__.get("_plan")
        if plan is not None and plan.version == self._app.conf.version and not plan.defaults:
            return plan
        return None

    def _find_plan(self, task: Any, static: tuple[Any, ...], args: Any, kwargs: Any) -> Plan:
        version = self._app.conf.version
        name = task if isinstance(task, str) else task.name
        kept = self._named.setdefault(name, {})
        key: Any = (static, isinstance(task, str))
        try:
            plan = kept.get(key)
        except TypeError:  # an option that cannot be hashed, such as a Queue with arguments
            return self._make_plan(task, name, dict(static), (args, kwargs))
        if plan is not None and plan.version == version and (plan.task is task or plan.task is None):
            return plan
        plan = self._make_plan(task, name, dict(static), (args, kwargs))
        plan.version = self._app.conf.version
        fixed = all(getattr(router, "static", False) for router in self._app.amqp.router.routers)
        if fixed and len(kept) < _MOST_PLANS:
            kept[key] = plan
            if plan.task is not None and not static and not self._app.conf.task_inherit_parent_priority:
                plan.task.__dict__["_plan"] = plan
        return plan

    def _make_plan(self, task: Any, name: str, static: dict[str, Any], call: tuple[Any, Any]) -> Plan:
        app, conf = self._app, self._app.conf
        check_name("the name of a task", name)
        own = None if isinstance(task, str) else task
        if own is None:
            own = app.tasks.get(name)
        given = {key: own_option(own, key) for key in TASK_DEFAULTS} if own is not None else {}
        # An explicit None of the call takes the task's default away.
        merged = {**{key: value for key, value in given.items() if value is not None}, **static}
        route = app.amqp.router.resolve(name, merged, args=call[0], kwargs=call[1], task=own)
        merged = {**route.fills, **{key: value for key, value in merged.items() if value is not None}}
        hard, soft = merged.get("time_limit"), merged.get("soft_time_limit")
        check_time_limits(hard, soft)
        priority = merged.get("priority", conf.task_default_priority)
        options = SendOptions(
            serializer=merged.get("serializer") or conf.task_serializer,
            compression=merged.get("compression") or conf.task_compression,
            priority=priority,
            delivery_mode=_delivery_mode(merged.get("delivery_mode") or conf.task_default_delivery_mode),
            timelimit=(hard, soft),
            ignore_result=bool(merged.get("ignore_result", conf.task_ignore_result)),
            expires=merged.get("expires"),
        )
        plan = Plan(None if isinstance(task, str) else task, name, route, options)
        plan.defaults = {key: value for key, value in route.fills.items() if key not in ROUTING and key != "expires"}
        plan.levels = conf.task_repr_maxlevels
        plan.zone = app.timezone
        queues = [_for_sending(app.amqp.queues[queue]) for queue in route.queues]
        if route.exchange or any(map(_is_described, queues)):
            declare_first(app, queues, needed=bool(route.exchange))
        return plan

    def message(self, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], call: Mapping[str, Any]) -> Message:
        """Return the message of a call that has been checked; `call` are the options that belong to it alone."""
        options, route = plan.options, plan.route
        body = encode_body(
            args,
            kwargs,
            _embed(call, options.serializer) if call else None,
            serializer=options.serializer,
            compression=options.compression,
        )
        message = Message(
            call.get("task_id") or new_id() if call else new_id(),
            plan.name,
            route.routing_key,
            b"",
            body.data,
            route.exchange,
            options.priority or 0,
        )
        template = plan.template or plan.template_for(body)
        fields = self.fields(plan, message.id, args, kwargs)
        parent = requests.top()
        if parent is not None:
            set_parent(fields)
        if call or options.expires is not None:
            self._fill(message, fields, call, plan)
            message.head = template.write(
                fields,
                reply_to=call.get("reply_to") or self._app.thread_oid,
                correlation_id=call.get("correlation_id"),
                expiration=self._expiration(message, call),
                headers=call.get("headers"),
            )
        else:
            message.head = template.write(fields, reply_to=self._app.thread_oid)
        return message

    def fields(self, plan: Plan, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> HeadFields:
        """Return the headers of a call without options."""
        return HeadFields(
            task_id,
            timelimit=plan.options.timelimit,
            argsrepr=safe_repr(args, plan.levels),
            kwargsrepr=safe_repr(kwargs, plan.levels) if kwargs else "{}",
            origin=self.origin,
            ignore_result=plan.options.ignore_result,
        )

    def _plain_messages(self, plan: Plan, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[Message]:
        """The same as `message` for many calls without options; what does not change is looked up once."""
        options, route, template, levels = plan.options, plan.route, plan.template, plan.levels
        assert template is not None
        shared = HeadFields("", timelimit=options.timelimit, origin=self.origin, ignore_result=options.ignore_result)
        write = BatchHeads(template, shared, reply_to=self._app.thread_oid).write
        queue, exchange, priority, name = route.routing_key, route.exchange, options.priority or 0, plan.name
        messages: list[Message] = []
        for task_id, (args, kwargs) in zip(new_id.many(len(calls)), calls, strict=True):
            body = encode_body(args, kwargs, None, serializer=options.serializer, compression=options.compression)
            head = write(task_id, safe_repr(args, levels), safe_repr(kwargs, levels) if kwargs else "{}")
            messages.append(Message(task_id, name, queue, head, body.data, exchange, priority))
        return messages

    def _fill(self, message: Message, fields: HeadFields, call: Mapping[str, Any], plan: Plan) -> None:
        """Put the options of one call into its message and headers."""
        now, zone = self._clock.now(), plan.zone
        assert zone is not None
        message.due = due_of(call, now, zone)
        expires = call.get("expires", plan.options.expires)
        message.expires = expires_of(expires, now, zone, plan.name)
        fields.retries = int(call.get("retries") or 0)
        fields.replaced_task_nesting = int(call.get("replaced_task_nesting") or 0)
        message.generation = fields.retries + fields.replaced_task_nesting
        fields.eta = format_time(message.due) if message.due else None
        fields.expires = format_time(message.expires) if message.expires else None
        fields.shadow = call.get("shadow")
        fields.group = call.get("group_id")
        fields.group_index = call.get("group_index")
        if "root_id" in call:
            fields.root_id = call["root_id"]
        if "parent_id" in call:
            fields.parent_id = call["parent_id"]
        for name in ("argsrepr", "kwargsrepr", "origin"):
            if call.get(name) is not None:
                setattr(fields, name, call[name])
        stamped = call.get("stamped_headers")
        if stamped is not None:
            fields.stamped_headers = list(stamped)
            stamps = dict(call.get("stamps") or {})
            fields.stamps = {**stamps, **{name: call[name] for name in stamped if name in call}}

    def _expiration(self, message: Message, call: Mapping[str, Any]) -> str | None:
        if call.get("expiration") is not None:
            return str(int(float(call["expiration"]) * 1000))
        if not message.expires or any(call.get(name) for name in _FOLLOWERS):
            # RabbitMQ drops what has expired without a word. Where others wait for it, a worker has to tell them.
            return None
        return str(max(0, round((message.expires - self._clock.now()) * 1000)))

    @property
    def origin(self) -> str:
        """Who sends: `gen<pid>@<host>`."""
        text, pid = self._origin
        if pid != os.getpid():
            pid = os.getpid()
            text = f"gen{pid}@{socket.gethostname()}"
            self._origin = (text, pid)
        return text

    # --- sending -----------------------------------------------------------------------------------------------

    def send(
        self,
        messages: Sequence[Message],
        *,
        retry: bool | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the messages; raise what the broker refused. See `sending.publish` for retries and the deadline."""
        refusals = publish(self._app, messages, retry=retry, policy=policy)
        if refusals:
            raise refusals[0].error

    def send_call(self, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], call: Mapping[str, Any]) -> str:
        """Build and store the message of one call, with the publish signals; return its id."""
        message = self.message(plan, args, kwargs, call)
        if somebody_listens():
            message, sent = announced(message, plan, (args, kwargs, call))
            self.send([message], retry=call.get("retry"), policy=call.get("retry_policy"))
            announce_sent(message, sent)
        else:
            self.send([message], retry=call.get("retry"), policy=call.get("retry_policy"))
        return message.id

    def send_many(
        self, plan: Plan, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], call: Mapping[str, Any]
    ) -> list[str]:
        """Store many calls of one plan in one step; return their ids in order."""
        calls = list(calls)
        if not call and plan.options.expires is None and plan.template is not None and requests.top() is None:
            messages = self._plain_messages(plan, calls)
        else:
            messages = [self.message(plan, args, kwargs, call) for args, kwargs in calls]
        told: list[Any] = []
        if somebody_listens():
            both = [
                announced(message, plan, (args, kwargs, call))
                for message, (args, kwargs) in zip(messages, calls, strict=True)
            ]
            messages, told = [one for one, _ in both], [sent for _, sent in both]
        if messages:
            self.send(messages, retry=call.get("retry"), policy=call.get("retry_policy"))
        for message, sent in zip(messages, told, strict=False):
            announce_sent(message, sent)
        return [message.id for message in messages]


def _for_sending(queue: Queue) -> Queue:
    """Return a queue as a sender declares it: of a Broadcast only the exchange, since the copies are the workers'."""
    return replace(queue, no_declare=True) if isinstance(queue, Broadcast) else queue


def _is_described(queue: Queue) -> bool:
    """Tell whether the queue is to be made otherwise than by its name alone."""
    return any(getattr(queue, name) is not None for name in _DESCRIPTION) or not queue.durable or queue.auto_delete


def _embed(call: Mapping[str, Any], serializer: str) -> dict[str, Any] | None:
    """Return what follows the call, as it stands in the body; None where nothing does."""
    found: dict[str, Any] = {name: call[name] for name in _EMBED if call.get(name)}
    if serializer != "json" and "chain" in found:
        found["chain"] = read_steps(found["chain"])
    for option, name in (("link", "callbacks"), ("link_error", "errbacks")):
        value = call.get(option)
        if value:
            found[name] = [value] if isinstance(value, Mapping) else list(value)
    return {name: _plain(value) for name, value in found.items()} if found else None


def _plain(value: Any) -> Any:
    """Return signatures as the plain dicts that every serializer writes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _parent_request() -> requests.Context | None:
    """The request of the task that sends, beneath functions that it calls directly."""
    frame = requests.top()
    while frame is not None:
        if not frame.request.called_directly:
            return frame.request
        frame = frame.outer
    return None


def set_parent(fields: HeadFields) -> None:
    """Note in the headers which task sends, if one does."""
    request = _parent_request()
    if request is not None:
        fields.parent_id = request.id
        fields.root_id = request.root_id or request.id


def _parent_priority() -> int | None:
    request = _parent_request()
    return (request.delivery_info or {}).get("priority") if request is not None else None


def _delivery_mode(value: Any) -> int:
    named = {"persistent": 2, "transient": 1}
    return named[value] if value in named else int(value)
