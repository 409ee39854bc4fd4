"""Groups of tasks in a Redis: parts, sizes and who is told that a group is complete, each a script."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from umbel.core.message import Joined, Part
from umbel.engines.redis.connection import Client
from umbel.engines.redis.scripts import load_script

__all__ = ["Groups"]

_SHARED = ("put_record", "groups")
_JOIN = load_script("join", *_SHARED)
_EXPECT = load_script("expect", *_SHARED)
_CONFIRM = load_script("confirm", *_SHARED)
_JOINED = load_script("joined", *_SHARED)
_FORGET = load_script("forget_groups", *_SHARED)


class Groups:
    """The part of the store that keeps groups (`umbel.engine.seam.Store`)."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys = [client.result_prefix]

    def join(self, parts: Sequence[Part], now: float) -> list[Joined]:
        """Store parts; return the groups that this completed."""
        del now  # nothing of an open group expires, and a closed one does so on Redis' clock
        args: list[str | bytes | int] = []
        for part in parts:
            args += (part.group, part.index, part.payload, "" if part.size is None else part.size)
        told = self._client.script(_JOIN, self._keys, args) if parts else []
        return [Joined(parts[place].group, tuple(payloads), parts[place].body) for place, payloads in told]

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Store the sizes of groups; return the groups that this completed."""
        del now
        names = list(sizes)
        args = [word for name in names for word in (name, sizes[name])]
        told = self._client.script(_EXPECT, self._keys, args) if names else []
        return [Joined(names[place], tuple(payloads)) for place, payloads in told]

    def confirm(self, groups: Collection[str]) -> None:
        """Tell nobody again that these groups are complete."""
        if groups:
            self._client.script(_CONFIRM, self._keys, list(groups))

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the payloads of those groups that are complete."""
        names = list(groups)
        found = self._client.script(_JOINED, self._keys, names) if names else []
        return {names[place]: tuple(payloads) for place, payloads in found}

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Delete the parts of groups, which stay closed until `expires`."""
        if groups:
            self._client.script(_FORGET, self._keys, [repr(expires), *groups])
