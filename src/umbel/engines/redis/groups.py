"""Groups of tasks in a Redis, in Celery's own keys: parts, sizes and who is told that a group is complete.

Each is a script. Pieces of workflows are `umbel.piece.<key>`, saved groups `celery-taskset-meta-<id>` as Celery's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from umbel.core.message import Joined, Message, Part, joinable, pack_message, unpack_message
from umbel.engines.redis.connection import Client
from umbel.engines.redis.scripts import load_script

__all__ = ["Groups"]

_T = TypeVar("_T")

_SHARED = ("put_record", "groups")
_JOIN = load_script("join", *_SHARED)
_EXPECT = load_script("expect", *_SHARED)
_CONFIRM = load_script("confirm", *_SHARED)
_JOINED = load_script("joined", *_SHARED)
_FORGET = load_script("forget_groups", *_SHARED)
_GROW = load_script("grow", *_SHARED)
#: Keys in one call: Redis serves nobody else meanwhile.
_CHUNK = 1000


class Groups:
    """The part of the store that keeps groups (`umbel.engine.seam.Store`)."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys = [client.result_prefix]
        self._pieces = client.result_prefix + b"umbel.piece."
        self._late = client.result_prefix + b"umbel.joined"
        self._bodies = client.result_prefix + b"umbel.body."
        self._saved = client.result_prefix + b"celery-taskset-meta-"

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        """Store parts; return the groups that this completed."""
        args: list[str | bytes | int] = [repr(now), int(anew)]
        last: Message | None = None
        parts = list(joinable(parts))
        for part in parts:
            size = "" if part.size is None else part.size
            args += (part.group, part.index, part.payload, size, part.member)
            if part.body is None:
                args.append("")
            else:
                args.append(b"=" if part.body is last else pack_message(part.body))
                last = part.body
        told = self._client.script(_JOIN, self._keys, args) if parts else []
        return [
            Joined(parts[place].group, tuple(payloads), parts[place].body or (body and unpack_message(body)))
            for place, payloads, body in told
        ]

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Store the sizes of groups; return the groups that this completed."""
        names = list(sizes)
        args = [repr(now), *[word for name in names for word in (name, sizes[name])]]
        told = self._client.script(_EXPECT, self._keys, args) if names else []
        return [Joined(names[place], tuple(payloads), body and unpack_message(body)) for place, payloads, body in told]

    def confirm(self, groups: Collection[str]) -> None:
        """Tell nobody again that these groups are complete."""
        if groups:
            self._client.script(_CONFIRM, self._keys, list(groups))

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        """Return groups that were completed before this time and are not confirmed."""
        names = self._client.call("ZRANGEBYSCORE", self._late, "-inf", f"({before!r}", "LIMIT", 0, limit)
        bodies = self._client.call("MGET", *[self._bodies + name for name in names]) if names else []
        late = zip(names, bodies, strict=True)
        return [Joined(name.decode(), (), unpack_message(body)) for name, body in late if body is not None]

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the payloads of those groups that are complete."""
        names = list(groups)
        found = self._client.script(_JOINED, self._keys, names) if names else []
        return {names[place]: tuple(payloads) for place, payloads in found}

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Delete the parts of groups, which stay closed until `expires`."""
        if groups:
            self._client.script(_FORGET, self._keys, [repr(expires), *groups])

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        """Let a group have more members; return the index of the first of them."""
        del now
        return int(self._client.script(_GROW, self._keys, [group, by, key]))

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        """Keep pieces of workflows; what is there already stays."""
        ending = ("PX", max(math.ceil((expires - now) * 1000), 1)) if expires else ()
        for batch in batched(pieces.items(), _CHUNK):
            self._all([("SET", self._pieces + key.encode(), piece, "NX", *ending) for key, piece in batch])

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        """Read pieces, which Redis drops at `expires`."""
        del now
        taken: dict[str, bytes] = {}
        for batch in batched(keys, _CHUNK):
            names = [self._pieces + key.encode() for key in batch]
            found = self._all([("MGET", *names), *(let_go(name, expires) for name in names)])[0]
            taken.update((key, piece) for key, piece in zip(batch, found, strict=True) if piece is not None)
        return taken

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        """Keep what `GroupResult.save` writes."""
        ending = ("EX", max(math.ceil(expires - now), 1)) if expires else ()
        self._client.call("SET", self._saved + group.encode(), data, *ending)

    def saved_group(self, group: str, now: float) -> bytes | None:
        """Return what was saved, by umbel or by Celery."""
        del now
        saved: bytes | None = self._client.call("GET", self._saved + group.encode())
        return saved

    def delete_group(self, group: str) -> None:
        """Delete what was saved."""
        self._client.call("DEL", self._saved + group.encode())

    def _all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Carry out commands in one round trip; raise what the first of them failed with."""
        answers = self._client.pipeline(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


def let_go(name: bytes, expires: float) -> tuple[Any, ...]:
    """Return the command by which a piece that has been read is dropped at `expires` (0: never)."""
    return ("PEXPIREAT", name, math.ceil(expires * 1000)) if expires else ("PERSIST", name)


def batched(items: Iterable[_T], most: int) -> Iterator[tuple[_T, ...]]:
    """Yield the items in tuples of up to `most`."""
    rest = iter(items)
    while batch := tuple(islice(rest, most)):
        yield batch
