"""One call of a task: check its arguments, send it (or run it here when eager), and make its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from umbel.app import request as requests
from umbel.app.client import Client, Plan
from umbel.app.eager import apply_eager
from umbel.app.ids import new_id
from umbel.app.models import dump_models
from umbel.app.publish_signals import announce_sent, announced, somebody_listens
from umbel.app.publisher import publisher_of
from umbel.app.result import AsyncResult
from umbel.core import serialization
from umbel.core.options import check_options
from umbel.core.protocol import encode_body

__all__ = ["acall", "add_to_trail", "call", "call_many", "checked", "result_of", "send_chunks"]

#: Calls in one transaction of a bulk publish.
_CHUNK = 1000
_NOTHING: Mapping[str, Any] = {}


def call(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Send one call and return its result: what `Task.apply_async` does."""
    app = task.app
    if app.conf.task_always_eager:
        args, kwargs = checked(task, args, kwargs, options)
        return _call_here(task, args, kwargs, options)
    args, kwargs = checked(task, args, kwargs, options)
    client: Client = app.client
    plan = client.quick_plan(task) if not options else None
    own = _NOTHING
    if plan is None:
        app.ensure_finalized()
        plan, own = client.plan(task, args, kwargs, options)
    return result_of(app, client.send_call(plan, args, kwargs, own), plan, own)


async def acall(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """The same for event loops: the message is stored by the publisher's thread."""
    app = task.app
    args, kwargs = checked(task, args, kwargs, options)
    if app.conf.task_always_eager:
        return _call_here(task, args, kwargs, options)
    app.ensure_finalized()
    client: Client = app.client
    plan, own = client.plan(task, args, kwargs, options)
    message = client.message(plan, args, kwargs, own)
    told = None
    if somebody_listens():
        message, told = announced(message, plan, (args, kwargs, own))
    await publisher_of(app).publish(message)
    if told is not None:
        announce_sent(message, told)
    return result_of(app, message.id, plan, own)


def call_many(task: Any, calls: Iterable[tuple[Any, Any]], options: dict[str, Any]) -> list[Any]:
    """Send many calls with the same options, a thousand to a transaction; return their results in order."""
    app = task.app
    if app.conf.task_always_eager:
        return [call(task, args, kwargs, dict(options)) for args, kwargs in calls]
    app.ensure_finalized()
    right = (checked(task, args, kwargs, options) for args, kwargs in calls)
    return send_chunks(app, task, right, options)


def send_chunks(app: Any, task: Any, calls: Iterable[tuple[Any, Any]], options: Mapping[str, Any]) -> list[Any]:
    """Send calls whose arguments have been checked; `task` is a task or a name."""
    if options.get("task_id") is not None:
        raise TypeError("task_id belongs to one call; many calls get ids of their own")
    client: Client = app.client
    rest = iter(calls)
    results: list[Any] = []
    while chunk := list(islice(rest, _CHUNK)):
        plan, own = client.plan(task, *chunk[0], options)
        for task_id in client.send_many(plan, chunk, own):
            results.append(result_of(app, task_id, plan, own))
    return results


def checked(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments once their types, and (`Task.typing`) the function's parameters, are right."""
    if args is None:
        args = ()
    elif type(args) is not tuple and type(args) is not list and not isinstance(args, (list, tuple)):
        raise TypeError(f"args must be a list or tuple, not {type(args).__name__}: for one argument write args=(x,)")
    if kwargs is None:
        kwargs = {}
    elif type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a mapping, not {type(kwargs).__name__}")
    check = task._check
    if check is not None and (kwargs or not check.fewest <= len(args) <= check.most):
        check.check(args, kwargs)
    if task.pydantic and (options.get("serializer") or task.serializer) != "pickle":
        args, kwargs = dump_models(args, kwargs)
    named = type(task).shadow_name
    if named.__module__ != "umbel.app.task" and "shadow" not in options:
        shadow = task.shadow_name(args, kwargs, options)
        if shadow is not None:
            options["shadow"] = shadow
    return args, kwargs


def _call_here(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]) -> Any:
    """Run the call here (`task_always_eager`); its arguments go through the serializer as they would on their way."""
    check_options(options, options.get("stamped_headers") or ())
    serializer = options.get("serializer") or task.serializer
    body = encode_body(args, kwargs, serializer=serializer)
    args, kwargs, _ = serialization.loads(body.data, body.content_type, body.content_encoding, {serializer})
    given = dict(options)
    result = apply_eager(task, args, kwargs, task_id=given.pop("task_id", None) or new_id(), **given)
    add_to_trail(result, options)
    return result


def result_of(app: Any, task_id: str, plan: Plan, own: Mapping[str, Any]) -> Any:
    """Return the result of a call that was sent, as a child of the task that sends it."""
    cls = own.get("result_cls") or AsyncResult if own else AsyncResult
    result: Any = cls(task_id, None, plan.name, app)
    if plan.options.ignore_result:
        result.ignored = True
    if requests.top() is not None:
        add_to_trail(result, own)
    return result


def add_to_trail(result: Any, options: Mapping[str, Any]) -> None:
    """Make the result a child of the task that sends it."""
    frame = requests.top()
    while frame is not None and frame.request.called_directly:
        frame = frame.outer
    if frame is not None and frame.task.trail and options.get("add_to_parent") is not False:
        frame.request.add_child(result)
