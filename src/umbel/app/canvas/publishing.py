"""From a frozen workflow to its messages; what many of them would repeat goes into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from umbel.app.flow_queue import flow_queue_name
from umbel.app.ids import new_id
from umbel.core.errors import NotSupportedError, OperationalError
from umbel.core.flow.freezing import freeze
from umbel.core.flow.late import Step
from umbel.core.flow.shape import Kind, Sig, every_task, kind_of
from umbel.core.flow.shaping import shapes
from umbel.core.flow.starting import Call, Opened, start
from umbel.core.flow.storing import shrink, unpack, unpack_steps
from umbel.core.flow.stubs import stub_key
from umbel.core.message import Message

__all__ = [
    "Ahead",
    "ahead_of",
    "build",
    "keep",
    "keep_shapes",
    "keeps_plans",
    "load",
    "load_steps",
    "messages",
    "name_asker",
    "resolve",
    "route_of",
    "small",
    "tried",
]

#: Pauses between attempts to reach the store (seconds).
_PAUSES = (0.1, 0.3, 1.0, 2.0)
#: How long the shape of a header is kept while it is open (seconds): a worker of Celery's that completes it leaves it.
_SHAPE_KEPT = 7 * 86400.0
#: Tasks that run others by name: they go where those would go.
_MAPPERS = frozenset({"celery.map", "celery.starmap"})


def load(app: Any, stub: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the piece that a stub stands for, and the stub of what follows it.

    Raises OperationalError where the store cannot be asked, NotSupportedError where the piece is gone.
    """
    return unpack(_piece(app, stub))


def load_steps(app: Any, stub: Mapping[str, Any]) -> list[Step]:
    """Return the steps that a stub stands for, reversed as they travel, and unread where they are tasks in a row."""
    return unpack_steps(_piece(app, stub))


class Ahead:
    """Pieces that were read before somebody asked for them, and which of them have been used since."""

    def __init__(self) -> None:
        self.pieces: dict[str, bytes] = {}
        self.used: list[str] = []


def ahead_of(app: Any) -> Ahead:
    """Return the pieces that this process has read ahead."""
    found: Ahead = app.__dict__.setdefault("_ahead", Ahead())
    return found


def _piece(app: Any, stub: Mapping[str, Any]) -> bytes:
    key, now, ahead = stub_key(stub), time.time(), ahead_of(app)
    if key in ahead.pieces:
        ahead.used.append(key)
        return ahead.pieces.pop(key)
    kept = app.conf.result_expires
    pieces = app.store.take_plans([key], now, now + kept if kept else 0.0) if app.store is not None else {}
    found: bytes | None = pieces.get(key)
    if found is None:
        raise NotSupportedError(
            f"the rest of the workflow ({key}) is not in the result store: has result_backend been changed, or did the "
            "piece expire (result_expires after it was first read)?"
        )
    return found


def messages(
    app: Any,
    sig: Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    ids: Callable[[], str] = new_id,
) -> tuple[list[Message], dict[str, int]]:
    """Return what is to be sent first of a workflow, and the sizes of the chord headers that this opens.

    `options` are those of `start`; `ids` gives the ids that are missing. Pieces are in the store when this returns.
    Raises what building a message raises, and OperationalError where the store is away.
    """
    whole = freeze(sig, ids)
    frozen, pieces = small(app, whole, ids)
    keep(app, pieces)
    keep_shapes(app, shapes(whole))
    found: list[Message] = []
    sizes: dict[str, int] = {}
    for call in start(frozen, args, kwargs, options):
        if isinstance(call, Opened):
            sizes[call.group] = call.size
        else:
            found.append(build(app, call))
    return found, sizes


def build(app: Any, call: Call) -> Message:
    """Return the message of one call."""
    task, options = resolve(app, call)
    message: Message = app.client.build(task, call.args, call.kwargs, options)
    return message


def resolve(app: Any, call: Call) -> tuple[Any, dict[str, Any]]:
    """Return the task of a call (its name where it is not registered here) and its options, routed."""
    options = call.options
    if call.task in _MAPPERS and not options.get("queue") and not options.get("exchange"):
        options = {**options, **route_of(app, call.kwargs.get("task"))}
    return app.tasks.get(call.task, call.task), options


def route_of(app: Any, inner: Any) -> dict[str, Any]:
    """Return the route of the task that is to be called many times, as options."""
    if not isinstance(inner, Mapping) or not isinstance(inner.get("task"), str):
        return {}
    name = inner["task"]
    plan, _ = app.client.plan(app.tasks.get(name, name), (), {}, {})
    route = plan.route
    return (
        {"exchange": route.exchange, "routing_key": route.routing_key}
        if route.exchange
        else {"queue": route.routing_key}
    )


def small(app: Any, frozen: dict[str, Any], ids: Callable[[], str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a frozen workflow with stubs in place of what its messages would repeat, and the pieces."""
    limit = app.conf.workflow_inline_limit
    if kind_of(frozen) is Kind.TASK or limit is None or not keeps_plans(app):
        return frozen, {}
    flow: list[str] = []
    count = 0

    def new_key() -> str:
        nonlocal count
        if not flow:
            flow.append(ids())
        count += 1
        return f"{flow[0]}:{count}"

    return shrink(frozen, limit, new_key, flow_queue_name(app))


def keeps_plans(app: Any) -> bool:
    """Tell whether results go to a store that keeps more than results: not as messages (`rpc://`), and not nowhere."""
    return app.store is not None and app.engine.replies is None


def keep(app: Any, pieces: dict[str, bytes]) -> None:
    """Put pieces into the store, and empty the dict; tries for a few seconds where the store is away."""
    if not pieces:
        return
    tried(lambda: app.store.put_plans(dict(pieces), time.time()))
    pieces.clear()


def keep_shapes(app: Any, found: Mapping[str, Any]) -> None:
    """Keep the shapes of headers (`core.flow.shaping`) where Celery's workers look for them too."""
    now = time.time()
    until = now + max(_SHAPE_KEPT, app.conf.result_expires or 0.0)
    for group, shape in found.items():
        data = msgspec.json.encode({"result": shape})
        tried(partial(app.store.save_group, group, data, now, until))


def tried(call: Callable[[], Any]) -> Any:
    """Return what a call of the store gives; while it is away it is called again for a few seconds."""
    for pause in _PAUSES:
        try:
            return call()
        except OperationalError:
            time.sleep(pause)
    return call()


def name_asker(app: Any, sigs: Iterable[Sig]) -> None:
    """Where results travel as messages: let every task of frozen signatures say who has asked, whoever sends it."""
    if app.engine.replies is None:
        return
    for sig in sigs:
        for task in every_task(sig):
            task["options"].setdefault("reply_to", app.thread_oid)
