"""Counting, finding and clearing: what is where, for people who look; workers ask for none of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from umbel.core.message import Depth, Stage
from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import SEPARATOR, Keys
from umbel.engines.redis.now import server_now
from umbel.engines.redis.scripts import DEPTH, PURGE

__all__ = ["Looking"]

_PAGE = 500
#: Of a list that is longer only these many messages at either end are looked through.
_FAR = 100_000


class _Id(msgspec.Struct, gc=False):
    id: str = ""


class _Named(msgspec.Struct, gc=False):
    headers: _Id


_name = msgspec.json.Decoder(_Named).decode


class Looking:
    """The view of one Redis."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue; no names means every queue that is known."""
        names = list(queues) or [name.decode("utf-8", "surrogateescape") for name in self._members(b"umbel.queues")]
        places = self._keys.lists_of(names)
        counts = {name: Depth() for name in names}
        answer = self._client.script(DEPTH, [self._keys.prefix], [server_now(now), *[name for _, name in places]])
        for (queue, _), (ready, scheduled, leased) in zip(places, answer, strict=True):
            count = counts[queue]
            count.ready += ready
            count.scheduled += scheduled
            count.leased += leased
        return counts

    def purge(self, queues: Sequence[str]) -> int:
        """Delete what is ready and scheduled; return how many."""
        if not queues:
            return 0
        lists = [name for _, name in self._keys.lists_of(queues)]
        return int(self._client.script(PURGE, [self._keys.prefix], lists))

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are, in any queue that is known; the stage nearest to running wins."""
        del now
        wanted = {id_: msgspec.json.encode(id_)[1:-1] for id_ in ids}
        found: dict[str, Stage] = {}
        if not wanted:
            return found
        for stage, page in self._pages():
            for raw in page:
                for id_, text in wanted.items():
                    if text in raw and _id_of(raw) == id_ and _nearer(stage, found.get(id_)):
                        found[id_] = stage
        return found

    def _pages(self) -> Iterator[tuple[Stage, list[bytes]]]:
        queues = [name.decode("utf-8", "surrogateescape") for name in self._members(b"umbel.queues")]
        for _, name in self._keys.lists_of(queues):
            for page in self._range("LRANGE", self._keys.key(name)):
                yield Stage.QUEUED, page
        for page in self._range("ZRANGE", self._keys.key(b"umbel.scheduled")):
            yield Stage.SCHEDULED, [member.partition(b"\0")[2] for member in page]
        for owner in self._client.call("ZRANGE", self._keys.key(b"umbel.owners"), 0, -1):
            yield from self._held(owner)

    def _members(self, name: bytes) -> list[bytes]:
        found: list[bytes] = self._client.call("SMEMBERS", self._keys.key(name))
        return sorted(found)

    def _range(self, command: str, key: bytes) -> Iterator[list[bytes]]:
        for first in range(0, _FAR, _PAGE):
            page = self._client.call(command, key, first, first + _PAGE - 1)
            if page:
                yield page
            if len(page) < _PAGE:
                return

    def _held(self, owner: bytes) -> Iterator[tuple[Stage, list[bytes]]]:
        notes = self._client.call("HGETALL", b"%bumbel.notes.%b" % (self._keys.prefix, owner))
        started = {
            number for number, note in zip(notes[::2], notes[1::2], strict=True) if note.split(b" ", 2)[1] != b"0"
        }
        for name in self._members(b"umbel.lists." + owner):
            place = b"umbel.held.%b%b%b" % (owner, SEPARATOR, name)
            held = self._client.call("HGETALL", self._keys.key(place))
            for number, envelope in zip(held[::2], held[1::2], strict=True):
                raw = envelope or self._client.call("LINDEX", self._keys.large(int(number)), 0) or b""
                yield (Stage.STARTED if number in started else Stage.LEASED), [raw]
            yield from ((Stage.QUEUED, page) for page in self._range(
                "LRANGE", self._keys.key(b"umbel.staged.%b%b%b" % (owner, SEPARATOR, name))
            ))  # fmt: skip


_ORDER = (Stage.DEAD, Stage.SCHEDULED, Stage.QUEUED, Stage.LEASED, Stage.STARTED)


def _nearer(stage: Stage, other: Stage | None) -> bool:
    return other is None or _ORDER.index(stage) > _ORDER.index(other)


def _id_of(raw: bytes) -> str:
    try:
        return _name(raw).headers.id
    except (msgspec.MsgspecError, RecursionError):
        return ""
