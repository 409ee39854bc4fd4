"""Messages that follow from the end of a task: callbacks, the next step of a chain, errbacks, and umbel's own tasks.

Their ids are derived from the task that ended, so that a run which is repeated sends the same messages again.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from umbel.app.canvas.publishing import load, load_steps, messages, tried
from umbel.app.flow_queue import derived_id
from umbel.app.stepping import Origin, step_message
from umbel.core.errors import NotSupportedError, OperationalError
from umbel.core.flow.dooming import Doomed, doomed
from umbel.core.flow.freezing import freeze
from umbel.core.flow.late import LateSteps, Step, read_step, read_steps
from umbel.core.flow.shape import Kind, Sig, body_of, header_group, kind_of, list_of, tasks_of
from umbel.core.flow.stubs import is_stub, stub_key
from umbel.core.message import Message

__all__ = ["Followers", "Source", "all_doomed", "follow", "follow_frozen", "full", "result_tuple"]

logger = logging.getLogger("celery.worker")


class Source(NamedTuple):
    """What messages follow from: the task that ended, which run of it, and what is handed down."""

    app: Any
    id: str
    generation: int = 0
    #: How often the task has been replaced: a replacement sends messages of its own.
    nesting: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    priority: int | None = None
    #: Who asked for the results, where these travel as messages.
    reply_to: str | None = None

    def id_at(self, position: str) -> str:
        """Return the id of the message at a position."""
        place = f"{position}@{self.nesting}" if self.nesting else position
        return derived_id(self.id, self.generation, place)

    def ids_at(self, position: str) -> Callable[[], str]:
        """Return what gives the ids of several messages at a position, in the same order each time."""
        numbers = itertools.count()
        return lambda: self.id_at(f"{position}/{next(numbers)}")


class Followers(NamedTuple):
    """Messages to be sent, and the child that they are of the task that ended (Celery's result tuple)."""

    messages: list[Message]
    child: Any


def follow(
    source: Source, signature: Sig, values: tuple[Any, ...], position: str, rest: Sequence[Step] = ()
) -> Followers:
    """Return what has to be sent so that a signature runs with `values` in front of its arguments.

    `rest` is what follows it, reversed as in a message; all may be stubs of pieces that the store keeps. Groups that
    this opens are announced to the store. Raises what building raises, and OperationalError where the store is away.
    """
    app, signature = source.app, full(signature)
    if is_stub(signature):
        stub = signature
        steps = tried(lambda: load_steps(app, stub))
        signature, rest = full(read_step(steps.pop())), [*rest, *steps]
    if kind_of(signature) is Kind.TASK:
        message = _single(source, signature, values, position, rest)
        return Followers([message], ((message.id, None), None))
    frozen = freeze(signature, source.ids_at(position))
    return Followers(follow_frozen(source, frozen, values, position, read_steps(rest)), result_tuple(frozen))


def follow_frozen(
    source: Source, frozen: Sig, values: tuple[Any, ...], position: str, rest: Sequence[Sig] = ()
) -> list[Message]:
    """Return what has to be sent first of a workflow that has its ids."""
    options: dict[str, Any] = {"root_id": source.root_id, "parent_id": source.parent_id}
    if rest:
        options["chain"] = list(rest)
    if source.priority is not None:
        options["priority"] = source.priority
    if source.reply_to:
        options["reply_to"] = source.reply_to
    sent, sizes = messages(source.app, frozen, values, {}, options, ids=source.ids_at(f"{position}+"))
    announce(source.app, sizes)
    return sent


def _single(source: Source, signature: Sig, values: tuple[Any, ...], position: str, rest: Sequence[Step]) -> Message:
    """Build the message of one task, what nearly every follower is."""
    app, name = source.app, signature["task"]
    args = tuple(signature.get("args") or ())
    if not signature.get("immutable"):
        args = (*values, *args)
    kwargs = dict(signature.get("kwargs") or {})
    if source.priority is None:
        origin = Origin(source.root_id, source.parent_id, source.reply_to)
        made = step_message(app, signature, (args, kwargs), origin, rest)
        if made is not None:
            return made
    options = {name: value for name, value in (signature.get("options") or {}).items() if value is not None}
    if "task_id" not in options:
        options["task_id"] = source.id_at(position)
    options["root_id"], options["parent_id"] = source.root_id, source.parent_id
    if source.priority is not None:
        options.setdefault("priority", source.priority)
    if source.reply_to:
        options.setdefault("reply_to", source.reply_to)
    if rest:
        options["chain"] = [*rest, *list_of(options.get("chain"))]
    message: Message = app.client.build(app.tasks.get(name, name), args, kwargs, _known(options))
    return message


def piece_after(request: Any) -> str:
    """Return the key of the piece that a task's end will ask for, if its chain goes on there; else ""."""
    chain = request._values.get("chain")
    if type(chain) is not LateSteps or len(chain.steps) != 1 or _RESUME not in bytes(chain.steps[0]):
        return ""
    (stub,) = chain.read()
    return stub_key(stub) if is_stub(stub) else ""


_RESUME = b'"umbel.resume"'
#: What Celery's canvas leaves among the options of a signature and a message does not carry.
_FOREIGN = frozenset({"election"})


def _known(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _FOREIGN}


def announce(app: Any, sizes: Mapping[str, int]) -> None:
    """Tell the store the sizes of groups whose members are about to be sent."""
    if not sizes:
        return
    store = app.store
    if store is None:
        raise NotSupportedError("a chord needs a place for the results of its header: set result_backend")
    tried(lambda: store.expect(sizes, time.time()))


def full(sig: Mapping[str, Any]) -> dict[str, Any]:
    """Return a signature with every key that one has: messages of others may leave some out."""
    return {"args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False, **sig}


def result_tuple(sig: Mapping[str, Any], parent: Any = None) -> Any:
    """Return a frozen workflow as Celery's results keep it among the children of a task: `((id, parent), members)`."""
    kind = kind_of(sig)
    if kind is Kind.CHAIN:
        for step in list_of(tasks_of(sig)):
            parent = result_tuple(step, parent)
        return parent
    if kind is Kind.CHORD:
        group, body = result_tuple(header_group(sig), parent), body_of(sig)
        return group if body is None else result_tuple(body, group)
    task_id = sig["options"].get("task_id")
    if kind is Kind.GROUP:
        return (task_id, parent), [result_tuple(member) for member in tasks_of(sig)]
    return (task_id, parent), None


def all_doomed(app: Any, sigs: Sequence[Sig]) -> Doomed:
    """Return what a failure takes with it (`doomed`), with the pieces of stubs read from the store."""
    # The stub of a body (`trimmed`) does not tell who waits for that in turn.
    bare = [sig for sig in sigs if is_stub(sig) and not sig["options"].get("chord")]
    found = doomed([*(sig for sig in sigs if sig not in bare), *(one for sig in bare for one in _content(app, sig))])
    ids = dict.fromkeys((*doomed(bare).ids, *found.ids))
    stubs = list(found.stubs)
    while stubs:
        more = doomed(_content(app, stubs.pop()))
        ids.update(dict.fromkeys(more.ids))
        stubs += more.stubs
    return Doomed(tuple(ids), found.memberships, ())


def _content(app: Any, stub: Sig) -> list[Sig]:
    try:
        piece, following = load(app, stub)
    except OperationalError:
        raise
    except Exception as exc:  # noqa: BLE001 - the piece is gone: what can be told is told
        logger.warning("the rest of a workflow cannot be read, so its tasks get no state: %s", type(exc).__name__)
        return []
    return [piece] if following is None else [piece, following]
