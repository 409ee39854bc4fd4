"""What `retry_failed` starts from: the messages of failed tasks and the parts of failed chords.

They are in the result store for as long as results are (`result_expires`), as pieces.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from umbel.app.canvas.publishing import keeps_plans, tried
from umbel.app.following import full
from umbel.core.errors import OperationalError
from umbel.core.flow.dooming import Doomed, doomed
from umbel.core.flow.stubs import stub_key
from umbel.core.message import GROWN, Message, Part

__all__ = [
    "KeptGroup",
    "KeptTask",
    "begin",
    "index_of",
    "keep_group",
    "keep_task",
    "kept_groups",
    "kept_tasks",
    "let_go",
    "reopen",
]

logger = logging.getLogger("celery.worker")

_T = TypeVar("_T")

_TASK, _GROUP, _BEGUN = "failed.task.", "failed.group.", "failed.begun."
#: Bytes of payloads in one piece, about.
_BLOCK = 1 << 20
#: Pieces that are read or written in one call.
_CHUNK = 1000


class KeptTask(msgspec.Struct, gc=False):
    """A task that has failed: its message, and what its failure took with it."""

    message: Message
    #: Tasks that were to follow, as far as its message tells; keys of the pieces that tell of more.
    ids: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    #: Groups that have been told of the failure.
    groups: tuple[str, ...] = ()
    #: It has no state, since its result is ignored.
    stateless: bool = False
    #: It has been taken for another run, which may not have been published yet.
    begun: bool = False


class KeptGroup(msgspec.Struct, gc=False):
    """The header of a chord that has failed: how many members it has, and what the failure took with it."""

    size: int
    #: How many members came later.
    grown: int
    #: How many pieces keep the payloads.
    blocks: int
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    payloads: tuple[bytes, ...] = ()


_pack = msgspec.msgpack.Encoder().encode
_read_task = msgspec.msgpack.Decoder(KeptTask).decode
_read_group = msgspec.msgpack.Decoder(KeptGroup).decode
_read_payloads = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


def _until(app: Any, now: float) -> float:
    kept = app.conf.result_expires
    return now + kept if kept else 0.0


# --- tasks ------------------------------------------------------------------------------------------------


def keep_task(app: Any, job: Any, followed: Any, *, stateless: bool = False) -> None:
    """Keep the message of a task that failed, if it belongs to a workflow; one that is too large is left out.

    `job` has the message's fields, `followed` its `chain`, `chord`, `group` and `parent_id`. Never raises for a store
    that is away: the failure itself must not wait for this.
    """
    if not (followed.chain or followed.chord or followed.group or followed.parent_id) or not keeps_plans(app):
        return
    found = doomed([full(step) for step in reversed(followed.chain or ())])
    groups = [member.group for member in found.memberships]
    if followed.chord and followed.group:
        groups.append(followed.group)
    message = Message(
        job.id,
        job.task,
        job.queue,
        job.head,
        job.body,
        job.exchange,
        job.priority,
        generation=job.generation,
    )
    pieces = tuple(stub_key(stub) for stub in found.stubs)
    data = _pack(KeptTask(message, found.ids, pieces, tuple(groups), stateless))
    if len(data) > app.conf.result_max_bytes:
        logger.info("the message of %s[%s] is too large to be kept for retry_failed()", job.task, job.id)
        return
    now = time.time()
    try:
        tried(lambda: app.store.put_plans({_TASK + job.id: data}, now, _until(app, now)))
    except OperationalError as exc:
        logger.warning("the message of %s[%s] is not kept for retry_failed(): %s", job.task, job.id, exc)


def kept_tasks(app: Any, ids: Collection[str]) -> dict[str, KeptTask]:
    """Return what is kept of those tasks of which something is."""
    found = {key: _read_task(data) for key, data in _taken(app, _TASK, ids).items()}
    for key in _taken(app, _BEGUN, list(found)):
        found[key].begun = True
    return found


def begin(app: Any, ids: Collection[str]) -> None:
    """Remember that the tasks are about to be sent again: should that be cut off, it can be done once more."""
    now = time.time()
    app.store.put_plans({_BEGUN + one: b"" for one in ids}, now, _until(app, now))


# --- groups -----------------------------------------------------------------------------------------------


def keep_group(app: Any, group: str, payloads: Sequence[bytes], took: Doomed) -> None:
    """Keep the parts of a header whose body will not run; raises OperationalError where the store is away."""
    now = time.time()
    expires = _until(app, now)
    grown = app.store.grow(group, 0, now) - GROWN
    blocks = list(_blocks(payloads, len))
    for place, block in enumerate(blocks):
        app.store.put_plans({f"{_GROUP}{group}.{place}": _pack(block)}, now, expires)
    kept = KeptGroup(
        len(payloads) - grown, grown, len(blocks), took.ids, tuple(member.group for member in took.memberships)
    )
    # Last: whoever finds it finds all.
    app.store.put_plans({_GROUP + group: _pack(kept)}, now, expires)


def kept_groups(app: Any, groups: Collection[str]) -> dict[str, KeptGroup]:
    """Return those of the groups that are kept, with their payloads."""
    found = {key: _read_group(data) for key, data in _taken(app, _GROUP, groups).items()}
    for group, kept in found.items():
        places = [str(place) for place in range(kept.blocks)]
        blocks = _taken(app, f"{_GROUP}{group}.", places)
        kept.payloads = tuple(payload for place in places for payload in _read_payloads(blocks.get(place, b"\x90")))
    return {group: kept for group, kept in found.items() if len(kept.payloads) == kept.size + kept.grown}


def reopen(app: Any, group: str, kept: KeptGroup, parts: Collection[Part]) -> None:
    """Open a group again with those of its parts that stay; the places of the others wait for new ones."""
    store, now = app.store, time.time()
    store.forget_groups([group])
    if kept.grown:
        store.grow(group, kept.grown, now)
    store.expect({group: kept.size}, now)
    for block in _blocks(parts, lambda part: len(part.payload)):
        store.join(block, now)


def _blocks(items: Iterable[_T], size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield the items in lists of about `_BLOCK` bytes, none longer than `_CHUNK`."""
    block: list[_T] = []
    size = 0
    for item in items:
        if block and (size + size_of(item) > _BLOCK or len(block) == _CHUNK):
            yield block
            block, size = [], 0
        block.append(item)
        size += size_of(item)
    if block:
        yield block


def index_of(kept: KeptGroup, place: int) -> int:
    """Return the index of the member whose payload is at a place."""
    return place if place < kept.size else GROWN + place - kept.size


def let_go(app: Any, tasks: Collection[str], groups: dict[str, KeptGroup]) -> None:
    """Delete what was kept of tasks and groups."""
    names = [f"{name}{one}" for one in tasks for name in (_TASK, _BEGUN)]
    for group, kept in groups.items():
        names += [_GROUP + group, *(f"{_GROUP}{group}.{place}" for place in range(kept.blocks))]
    now = time.time()
    for start in range(0, len(names), _CHUNK):
        app.store.take_plans(names[start : start + _CHUNK], now, now - 1)


def _taken(app: Any, prefix: str, names: Collection[str]) -> dict[str, bytes]:
    """Read pieces under a prefix, by their names without it; they stay as long as results do from now on."""
    now = time.time()
    expires, listed = _until(app, now), list(names)
    found: dict[str, bytes] = {}
    for start in range(0, len(listed), _CHUNK):
        keys = [prefix + name for name in listed[start : start + _CHUNK]]
        taken = app.store.take_plans(keys, now, expires)
        found.update((key.removeprefix(prefix), data) for key, data in taken.items())
    return found
