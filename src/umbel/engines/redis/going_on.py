"""The end of a lease and the lease of what follows from it as one step, for a worker that is idle otherwise."""

from __future__ import annotations

from typing import Any

import msgspec

from umbel.core.message import Delivery, End, Message, Settlement
from umbel.engine.seam import Gone, Pieces
from umbel.engines.redis.connection import Client
from umbel.engines.redis.envelopes import Tag, pack
from umbel.engines.redis.failures import RedisFailure
from umbel.engines.redis.groups import let_go
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import GO_ON
from umbel.engines.redis.sending import Sending
from umbel.engines.redis.store import record_words

__all__ = ["GoingOn"]

_NO_RECORD = ("", "", "", "")


class GoingOn:
    """Follow-ups of one broker."""

    def __init__(self, client: Client, keys: Keys, sending: Sending) -> None:
        self._client = client
        self._prefixes = [keys.prefix, client.result_prefix]
        self._pieces = client.result_prefix + b"umbel.piece."
        self._sending = sending
        #: (queue, priority) → list; of the queues of this worker.
        self._lists: dict[tuple[str, int], bytes] = {}

    def leased(self, settlement: Settlement) -> Delivery | None:
        """Return the only message that follows as it is leased: under the number of the lease that ends."""
        if settlement.end is not End.DONE or settlement.parts or len(settlement.publish) != 1:
            return None
        (message,), tag = settlement.publish, settlement.tag
        if message.exchange or message.due or message.expires or tag.adopted or tag.token != settlement.token:
            return None
        return Delivery(
            message.id,
            message.task,
            message.queue,
            message.head,
            message.body,
            priority=message.priority,
            generation=message.generation,
            tag=Tag(tag.number, self._list_of(message), 1),
            token=1,
        )

    def go_on(
        self, owner: str, lane: str, ticket: int, settlement: Settlement, now: float, pieces: Pieces | None = None
    ) -> Gone:
        """Commit the outcome, or hear how that was answered before; tell whether the follow-up is leased."""
        (message,), tag, record = settlement.publish, settlement.tag, settlement.record
        target = self._list_of(message)
        stored = _NO_RECORD if record is None else record_words(record, now)
        words = (owner, lane, ticket, tag.list, tag.number, target, pack(message, now), *stored)
        if pieces is None:
            return Gone(self._client.script(GO_ON, self._prefixes, words) == b"held")
        until = [let_go(self._pieces + key.encode(), pieces.expires) for key in pieces.used]
        answers = self._client.begin([GO_ON.command(self._prefixes, words), *until])
        key = pieces.wanted()
        read = self._client.begin([("GET", self._pieces + key.encode())]) if key else None
        answer = answers()[0]
        piece = None if read is None else read()[0]
        if isinstance(answer, RedisFailure):
            if answer.code != "NOSCRIPT":
                raise answer
            answer = self._client.script(GO_ON, self._prefixes, words)
        return Gone(answer == b"held", piece if isinstance(piece, bytes) else None)

    def _list_of(self, message: Message) -> bytes:
        key = (message.queue, message.priority)
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = self._sending.list_of(*key)
        return found

    def pack_tag(self, tag: Any) -> bytes:
        """Return a tag as another process can read it."""
        return msgspec.msgpack.encode(tag)

    def unpack_tag(self, data: bytes) -> Any:
        """Read what `pack_tag` wrote."""
        return msgspec.msgpack.decode(data, type=Tag)
