"""Keep messages small: what many messages of a workflow would carry is stored once, and stubs travel in its place.

Without that, each message of a chain carries all later steps, and each member of a header the whole body: bytes grow
with the square of the length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from umbel.core import json_types
from umbel.core.errors import EncodeError
from umbel.core.flow.late import Step
from umbel.core.flow.shape import (
    Kind,
    Sig,
    body_of,
    chain_of,
    header_group,
    is_stream,
    kind_of,
    leaves,
    list_of,
    tasks_of,
)
from umbel.core.flow.starting import attach, waiting_body
from umbel.core.flow.stubs import is_stub, leaf_count, make_stub, stub_key, telling

__all__ = ["is_stub", "shrink", "stub_key", "unpack", "unpack_steps"]

#: Bytes of later steps that a message carries before the rest is stored.
BLOCK = 1200
#: From so many bytes on it is looked how deeply steps are nested.
_LONG = 4096
#: Levels of lists and mappings that a message carries; consumers refuse more than 100.
DEPTH = 60
#: Bytes of a stub, about.
_STUB = 240
#: Levels that sizes are taken of, and pieces may have.
_DEEPEST = 600
#: Members that a header is taken to have while it is still being read.
_UNKNOWN = 1000


def shrink(sig: Sig, limit: int, new_key: Callable[[], str], queue: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a frozen workflow with stubs in it, and the pieces that they stand for, by key.

    A piece is stored when embedding it would repeat more than `limit` bytes in all messages that carry it (0: whenever
    a stub is smaller). Of headers that are generators the pieces are added as members are read: store them before the
    calls that were given so far. A workflow whose arguments JSON cannot express stays as it is.
    """
    shrinker = _Shrinker(limit, new_key, queue)
    try:
        return shrinker.whole(sig), shrinker.pieces
    except EncodeError:
        return dict(sig), {}


def unpack(piece: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the signature of a stored piece, and the stub of what follows it."""
    sig, following = json_types.loads(piece, _DEEPEST)
    return sig, following


class _Task(msgspec.Struct, gc=False):
    task: str
    subtask_type: None


class _Tasks(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    tasks: list[_Task]


class _Raws(msgspec.Struct, gc=False):
    tasks: list[msgspec.Raw]


class _Row(msgspec.Struct, gc=False):
    kwargs: _Tasks
    task: Literal["celery.chain"]


class _RawRow(msgspec.Struct, gc=False):
    kwargs: _Raws


_check_row = msgspec.json.Decoder(tuple[_Row, msgspec.Raw]).decode
_read_row = msgspec.json.Decoder(tuple[_RawRow, msgspec.Raw]).decode


def unpack_steps(piece: bytes) -> list[Step]:
    """Return the steps of a stored piece, and the stub of what follows it, reversed as they travel in messages.

    They are left unread where the piece is nothing but tasks in a row.
    """
    try:
        _check_row(piece)
        row, following = _read_row(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        sig, stub = unpack(piece)
        return [sig] if stub is None else [stub, sig]
    steps = list[Step](reversed(row.kwargs.tasks))
    return steps if bytes(following) == b"null" else [following, *steps]


class _Shrinker:
    def __init__(self, limit: int, new_key: Callable[[], str], queue: str) -> None:
        self.limit = limit
        self.new_key = new_key
        self.queue = queue
        self.pieces: dict[str, bytes] = {}

    def whole(self, sig: Sig) -> dict[str, Any]:
        """Shrink a frozen signature that nothing follows."""
        kind = kind_of(sig)
        if kind is Kind.TASK:
            return dict(sig)
        steps = list_of(tasks_of(sig)) if kind is Kind.CHAIN else [sig]
        if len(steps) == 2 and all(kind_of(step) is Kind.TASK for step in steps):
            return dict(sig)
        return chain_of(self.fold(steps)) if steps else dict(sig)

    def fold(self, steps: list[Sig]) -> list[Sig]:
        """Shrink steps from the last to the first, each with what is left of those after it."""
        cut = len(steps) > 2 and self._repeated(steps) > self.limit
        rest: list[Sig] = []
        sizes = 0
        for place, step in reversed(list(enumerate(steps))):
            if rest and not (len(rest) == 1 and is_stub(rest[0])):
                sizes = sizes or _size(rest)
                if (cut and sizes > BLOCK) or (sizes > _LONG and _depth(rest) > DEPTH):
                    rest, sizes = [self.store(rest)], 0
            before = len(rest)
            step, rest = self.step(step, rest)
            sizes = sizes + _size(step) + 1 if cut and before == len(rest) and sizes else 0
            rest = [step, *rest]
            if place and _has_stubs_in_header(step):
                rest, sizes = [self.store(rest)], 0
        return rest

    def step(self, step: Sig, rest: list[Sig]) -> tuple[Sig, list[Sig]]:
        """Shrink one step; return it and what is left of `rest`, which the body of a chord may have taken up."""
        kind = kind_of(step)
        if kind is Kind.GROUP:
            kwargs = {**step["kwargs"], "tasks": self._each(tasks_of(step), None, "")}
            return {**step, "kwargs": kwargs}, rest
        if kind is not Kind.CHORD:
            return step, rest
        body, group = body_of(step), header_group(step)
        if body is None and not rest:
            return {**step, "kwargs": {**step["kwargs"], "header": self.step(group, [])[0]}}, rest
        if body is None:
            body, rest = rest[0], rest[1:]
        else:
            body, rest = self.step(body, rest)
            if _has_stubs_in_header(body):
                body, rest = self.store([body, *rest]), []
        tasks = tasks_of(group)
        following: list[Sig] = [body, *rest]
        if self._worth(following, _calls(tasks)):
            stub = self.store(following)
            body, rest = telling(stub, self.queue) if _needs_telling(chain_of(following)) else stub, []
        whole = waiting_body([body, *rest])
        header = {
            **group,
            "kwargs": {**group["kwargs"], "tasks": self._each(tasks, whole, group["options"]["task_id"])},
        }
        return {**step, "kwargs": {"kwargs": {}, "header": header, "body": body}}, rest

    def _each(self, tasks: Any, body: Sig | None, group_id: str) -> Any:
        """Shrink the members of a group; those of a header get the body first, since pieces must know it."""
        shrunk = (self._member(member, body, group_id) for member in tasks)
        return shrunk if is_stream(tasks) else list(shrunk)

    def _member(self, member: Sig, body: Sig | None, group_id: str) -> Sig:
        if kind_of(member) is Kind.TASK:
            return member
        if body is None:
            return self.whole(member)
        before = len(self.pieces)
        shrunk = self.whole(attach(member, body, group_id))
        # Without pieces it stays as it is, so that a Celery worker can open the header too.
        return member if len(self.pieces) == before else shrunk

    def _repeated(self, steps: list[Sig]) -> int:
        """Bytes that the messages of a chain would carry more than once: step k is in all messages before it."""
        found = 0
        for times, step in enumerate(steps[2:], 1):
            found += times * _size(step)
            if found > self.limit:
                break
        return found

    def _worth(self, following: list[Sig], calls: int) -> bool:
        """Tell whether the body of a header of so many calls (and what follows it) is better stored."""
        if len(following) == 1 and is_stub(following[0]):
            return False
        size = _size(following)
        if calls > 1 and size > _STUB and (calls - 1) * (size - _STUB) > self.limit:
            return True
        return size > _LONG and _depth(following) > DEPTH

    def store(self, following: list[Sig]) -> Sig:
        """Keep steps as a piece (the last may be a stub); return the stub that stands for all of them."""
        if len(following) == 1 and is_stub(following[0]):
            return following[0]
        after = following[-1] if is_stub(following[-1]) else None
        sig = chain_of(list(following if after is None else following[:-1]))
        key = self.new_key()
        self.pieces[key] = json_types.dumps([sig, after], _DEEPEST)
        return make_stub(chain_of(list(following)), key, self.queue)


def _size(value: Any) -> int:
    return len(json_types.dumps(value, _DEEPEST))


def _needs_telling(body: Sig) -> bool:
    """Tell whether the failure of a body ends more than its last task: errbacks, a group, or a chord around it."""
    if leaf_count(body) > 1 or any(leaf["options"].get("chord") for leaf in leaves(body)):
        return True
    while kind_of(body) is Kind.CHAIN and (steps := list_of(tasks_of(body))):
        body = steps[0]
    return bool(body["options"].get("link_error"))


def _has_stubs_in_header(step: Sig) -> bool:
    """Tell whether a chord is one that only umbel's workers can open: Celery's would give its header a new id."""
    if kind_of(step) is not Kind.CHORD:
        return False
    tasks = tasks_of(header_group(step))
    waiting = [] if is_stream(tasks) else list(tasks)
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if is_stub(one):
            return True
        if kind is Kind.CHORD:
            body = body_of(one)
            waiting += [*list_of(tasks_of(header_group(one))), *([] if body is None else [body])]
        elif kind is not Kind.TASK:
            waiting += list_of(tasks_of(one))
    return False


def _calls(tasks: Any) -> int:
    """Count the messages that a header leads to before its body."""
    if is_stream(tasks):
        return _UNKNOWN
    found, waiting = 0, [tasks]
    while waiting:
        for one in waiting.pop():
            kind = kind_of(one)
            if kind is Kind.TASK:
                found += 1
                continue
            if kind is Kind.CHORD:
                waiting.append(list_of(tasks_of(header_group(one))))
                body = body_of(one)
                waiting.append([] if body is None else [body])
            else:
                waiting.append(list_of(tasks_of(one)))
    return found


def _depth(value: Any) -> int:
    """Count the levels of lists and mappings in a value."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        one, level = waiting.pop()
        if isinstance(one, Mapping):
            one = one.values()
        elif not isinstance(one, (list, tuple)):
            continue
        deepest = max(deepest, level)
        waiting.extend((each, level + 1) for each in one)
    return deepest
