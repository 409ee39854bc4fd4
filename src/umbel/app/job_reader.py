"""Reads the message of a job. What nearly all messages of a task have in common is read once and remembered.

Two heads that differ only in their id, their parent and the texts of their arguments mean the same but for these. Such
a head is checked once; for the next one only what differs is looked at, and the rest of it is read when a task asks.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from string import ascii_letters, digits
from typing import Any, NamedTuple

import msgspec

from umbel.core import json_types, protocol
from umbel.core.limits import Limits
from umbel.core.protocol import Head, Payload, Quarantined

__all__ = ["JobReader", "LateHead", "unpack_body"]

#: After so many messages in a row that are unlike the ones before, likeness is not looked for any more.
_MISSES = 1000
#: Longer bodies are read the thorough way: there the few microseconds do not count.
_SHORT_BODY = 16 * 1024
#: How a tag of a typed value begins; such bodies are read the thorough way.
_TAG = b'"__type__"'

#: What an id may consist of to be looked at like this.
_INERT = (ascii_letters + digits + "-_").encode()


class _Varying(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    parent_id: str | None
    argsrepr: str | None
    kwargsrepr: str | None


#: What the heads of one kind have in common unless their id is in it.
_FIXED = frozenset(Head.__struct_fields__) - {"id", "parent_id", "argsrepr", "kwargsrepr"}


class _Signature(msgspec.Struct, gc=False):
    task: str


class _Steps(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    callbacks: None
    errbacks: None
    chain: list[msgspec.Raw] | None
    chord: None


class _Checked(msgspec.Struct, gc=False):
    chain: list[_Signature] | None


class _Kind(NamedTuple):
    """What the heads of one task have in common: the pieces between their ids, before and after what varies."""

    front: tuple[bytes, ...]
    back: tuple[bytes, ...]
    #: What stood between them in the first one.
    between: bytes
    varying: _Varying
    #: The first head of this kind, for what does not differ, and the names of that.
    head: Head
    fixed: frozenset[str]
    #: Its body is uncompressed JSON, which this program reads.
    plain: bool


_read_varying = msgspec.json.Decoder(_Varying).decode
_read_body = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Steps]).decode
_check_body = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, _Checked]).decode


class LateHead:
    """The head of a job whose kind is known: read when somebody asks for what the kind does not tell."""

    __slots__ = ("_full", "_job", "_kind", "_limits", "id", "parent_id")

    def __init__(self, job: Any, kind: _Kind, parent_id: str | None, limits: Limits) -> None:
        self._job = job
        self._kind = kind
        self._limits = limits
        self._full: Head | None = None
        self.id = job.id
        self.parent_id = parent_id

    def __getattr__(self, name: str) -> Any:
        full, kind = self._full, self._kind
        if full is None:
            if name in kind.fixed:
                return getattr(kind.head, name)
            read = protocol.read_head(self._job.head, self._limits)
            full = self._full = kind.head if isinstance(read, Quarantined) else read
        return getattr(full, name)


class JobReader:
    """Reads heads and bodies for one Runner."""

    __slots__ = ("_accept", "_json", "_kinds", "_limits", "_misses")

    def __init__(self, accept: Collection[str], limits: Limits) -> None:
        self._accept = accept
        self._json = "application/json" in accept
        self._limits = limits
        #: By name of the task.
        self._kinds: dict[str, _Kind] = {}
        self._misses = 0

    def read(self, job: Any) -> tuple[Head, Any, Payload] | Quarantined:
        """Return the head of the kind of message that `job` is, its own head, and its arguments.

        The first says truly: what the body is written in, `ignore_result`, `parent_id`, `group`. Never raises.
        """
        kind = self._kinds.get(job.task)
        head: Any
        varying = None if kind is None else _varying_like(job, kind)
        if kind is not None and varying is not None:
            plain = kind.plain
            self._misses = 0
            known = kind.head
            head = LateHead(job, kind, varying.parent_id, self._limits)
            if varying.parent_id != known.parent_id:
                known = head
        else:
            read = protocol.read_head(job.head, self._limits)
            if isinstance(read, Quarantined):
                return read
            head = known = read
            plain = self._json and _is_plain(read)
            self._remember(job, read, plain)
        payload = self._read_quickly(job.body) if plain else None
        if payload is None:
            body = protocol.read_body(known, job.body, self._accept, self._limits)
            if isinstance(body, Quarantined):
                return body
            payload = body
        return known, head, payload

    def _remember(self, job: Any, head: Head, plain: bool) -> None:
        """Keep what this head has in common with the next ones of its task, if that can be told for certain."""
        if self._misses > _MISSES:
            self._kinds.clear()
            return
        self._misses += 1
        kind = _kind_of(job, head, plain)
        if kind is not None:
            self._kinds[job.task] = kind

    def _read_quickly(self, body: bytes) -> Payload | None:
        """Return what a short body holds that nothing follows from but a chain, whose steps are left unread.

        None where it has to be read thoroughly.
        """
        if len(body) > _SHORT_BODY or _TAG in body or not json_types.surely_shallow(body, self._limits.depth):
            return None
        try:
            args, kwargs, embed = _read_body(body)
            if not embed.chain:
                return Payload(args, kwargs)
            _check_body(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return Payload(args, kwargs, steps=embed.chain)


def unpack_body(job: Any) -> str:
    """Take the body of a job out of the form in which its envelope had it; return why that cannot be done, or ""."""
    plain = protocol.plain_body(job.body, job.body_encoding)
    job.body_encoding = ""
    if isinstance(plain, Quarantined):
        job.body = b""
        return plain.reason
    job.body = plain
    return ""


def _is_plain(head: Head) -> bool:
    json = head.content_type == "application/json" and (head.content_encoding or "").lower() == "utf-8"
    return json and head.compression is None


def _kind_of(job: Any, head: Head, plain: bool) -> _Kind | None:
    """Take a head apart; None where its id is more than a JSON string of its own here and there."""
    name, raw = job.id.encode(), job.head
    begin = raw.find(b'"parent_id":')
    end = raw.find(b'"origin":', begin)
    if begin < 0 or end < 0 or head.id != job.id or job.id in (head.parent_id, head.group):
        return None
    front, back = raw[:begin].split(name), raw[end:].split(name)
    varying = _varying_of(raw[begin:end], job.id)
    quoted = all(
        one.endswith(b'"') and other.startswith(b'"') for pieces in (front, back) for one, other in pairwise(pieces)
    )
    if not quoted or not _is_inert(name) or varying is None:
        return None
    fixed = frozenset(field for field in _FIXED if job.id not in str(getattr(head, field)))
    return _Kind(tuple(front), tuple(back), raw[begin:end], varying, head, fixed, plain)


def _varying_like(job: Any, kind: _Kind) -> _Varying | None:
    """Return what varies in a head that is otherwise like those of `kind`; None where it is not."""
    raw, name = job.head, job.id.encode()
    front, back = name.join(kind.front), name.join(kind.back)
    if not raw.startswith(front) or not raw.endswith(back) or not _is_inert(name):
        return None
    varying = raw[len(front) : len(raw) - len(back)]
    return kind.varying if varying == kind.between else _varying_of(varying, job.id)


def _is_inert(name: bytes) -> bool:
    """Tell whether an id means the same wherever it stands inside a JSON string, and is short enough to be one."""
    return 0 < len(name) < 100 and not name.translate(None, _INERT)


def _varying_of(data: bytes, id_: str) -> _Varying | None:
    """Return what this piece of a head holds: the parent, the texts of the arguments and nothing else, else None."""
    try:
        found = _read_varying(b"{%b}" % data[:-1]) if data.endswith(b",") else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if found is None or found.parent_id is None:
        return found
    return found if found.parent_id != id_ and _is_inert(found.parent_id.encode()) else None
