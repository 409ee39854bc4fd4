"""Taking in messages that another broker has let go: stored as held already, and known again when a copy comes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from umbel.core.message import Delivery
from umbel.engine.seam import Lease
from umbel.engines.redis.connection import Client
from umbel.engines.redis.envelopes import Counts, Tag, pack
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.now import server_now
from umbel.engines.redis.scripts import ADOPT
from umbel.engines.redis.store import Revocations

__all__ = ["Adopting"]


class Adopting:
    """What one broker takes in."""

    def __init__(self, client: Client, keys: Keys, revocations: Revocations) -> None:
        self._client = client
        self._keys = keys
        self._revocations = revocations

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages as leased to `lease.owner`; return those that it holds now, as they are held here.

        A call whose reply was lost is simply made again: what it has stored is known.
        """
        if not deliveries:
            return []
        args: list[Any] = [lease.owner, server_now(now), repr(float(lease.seconds))]
        for item in deliveries:
            name = _name_of(item)
            counts = Counts(max(item.token - 1, 0), item.crashes, item.offers, adopted=name)
            place = self._keys.list_of(item.queue, item.priority)
            note = f"{item.ticket} {item.former_owner}"
            raw = pack(item, item.published or now, counts, text_from=self._client.location.text_from)
            args += (name, counts.token + 1, place, raw, note)
        # What an earlier call saw is over, also when this one fails.
        self._revocations.saw(True)
        *answer, revoked = self._client.script(ADOPT, [self._keys.prefix, self._client.result_prefix], args)
        self._revocations.saw(bool(revoked))
        return [
            _held(item, args[3 + 5 * n], held)
            for n, (item, held) in enumerate(zip(deliveries, answer, strict=True))
            if held
        ]


def _held(item: Delivery, name: str, held: Sequence[Any]) -> Delivery:
    number, token, bumps, place = held
    tag = Tag(int(number), place, int(token), int(bumps), name)
    return msgspec.structs.replace(item, token=tag.token, tag=tag)


def _name_of(message: Delivery) -> str:
    """Return what tells a message apart from others: a digest, since an id may be anything."""
    parts = (message.queue, str(message.generation), message.id)
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
