"""The result store of a Redis, in Celery's own keys, so that Celery reads what umbel stores and the other way round."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from umbel.core.message import Record
from umbel.core.states import READY_STATES
from umbel.engines.redis.connection import Client
from umbel.engines.redis.groups import Groups
from umbel.engines.redis.scripts import load_script
from umbel.engines.redis.server import look
from umbel.engines.redis.states import state_of
from umbel.engines.redis.watch import RESULT_KEY, RedisWatch

__all__ = ["RedisStore", "Revocations"]

_PUT = load_script("put", "put_record")
_REVOKE = load_script("revoke")
_REVOKED = load_script("revoked")
#: Keys in one command: Redis serves nobody else meanwhile.
_CHUNK = 1000


class Revocations:
    """What the broker saw of the revocations when it leased: that there are none costs no further look.

    A lease script reads whether `umbel.revoked` exists and hands that to `saw`; the same thread's next question
    about revocations is then answered from it, once.
    """

    def __init__(self) -> None:
        self._seen = threading.local()

    def saw(self, any_revoked: bool) -> None:
        """Note for this thread whether something was marked as revoked just now."""
        self._seen.none = not any_revoked

    def none_seen(self) -> bool:
        """Tell, once, whether this thread has just seen that nothing is revoked."""
        none = bool(getattr(self._seen, "none", False))
        self._seen.none = False
        return none


class RedisStore(Groups):
    """Where results, revocations and groups live: Store of `umbel.engine.seam`.

    Redis itself drops what is over, on its own clock (`caps.expiry` is "server"); a record that is read tells 0
    as its `expires`.
    """

    def __init__(self, client: Client, revocations: Revocations | None = None) -> None:
        super().__init__(client)
        self._prefix = client.result_prefix + RESULT_KEY
        self._final = client.result_prefix + b"umbel.final."
        self._revocations = revocations or Revocations()
        #: Terminal states that a watch has heard and nobody has read yet: each spares one round trip.
        self._told: dict[str, bytes] = {}

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        """Store states and tell those who wait; return the ids whose terminal state stays."""
        refused: list[str] = []
        for first in range(0, len(records), _CHUNK):
            batch = records[first : first + _CHUNK]
            args: list[str | bytes] = []
            for record in batch:
                args += record_words(record, now)
            refused += [batch[place].id for place in self._client.script(_PUT, self._keys, args)]
        return refused

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        """Read states; unknown and expired ids are left out."""
        del now
        found: dict[str, Record] = {}
        if self._told:
            for id_ in ids:
                told = self._told.pop(id_, None)
                if told is not None:
                    found[id_] = Record(id_, state_of(told), told)
            ids = [id_ for id_ in ids if id_ not in found]
        for first in range(0, len(ids), _CHUNK):
            batch = ids[first : first + _CHUNK]
            metas = self._client.call("MGET", *[self._prefix + id_.encode() for id_ in batch])
            for id_, meta in zip(batch, metas, strict=True):
                if meta is not None:
                    found[id_] = Record(id_, state_of(meta), meta)
        return found

    def watch(self) -> RedisWatch:
        """Open a watch for this process."""
        return RedisWatch(self._client, self._told)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete states."""
        for id_ in ids:
            self._told.pop(id_, None)
        for first in range(0, len(ids), _CHUNK):
            names = [id_.encode() for id_ in ids[first : first + _CHUNK]]
            self._client.call("DEL", *[self._prefix + name for name in names], *[self._final + name for name in names])

    def expire(self, now: float, limit: int = 1000) -> int:
        """Return 0: Redis drops what is over by itself."""
        del now, limit
        return 0

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        """Mark tasks as revoked; the worker that gets the message ends it, so none of them ends at once."""
        for first in range(0, len(records), _CHUNK):
            args = [
                word
                for record in records[first : first + _CHUNK]
                for word in (record.id, seconds_left(record.expires, now))
            ]
            self._client.script(_REVOKE, self._keys, args)
        self._revocations.saw(True)
        return []

    def revoked(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids are marked as revoked."""
        if not ids or self._revocations.none_seen():
            return set()
        return {ids[place] for place in self._client.script(_REVOKED, self._keys, ids)}

    def warnings(self) -> list[str]:
        """Return what Redis' own settings mean for results, where that is not good."""
        return look(self._client).warnings(f"Redis at {self._client.location.address}")

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def seconds_left(expires: float, now: float) -> str:
    """Return for how many seconds from `now` something is kept, as scripts take it; "0" is for ever."""
    return f"{max(expires - now, 0.001):.3f}" if expires else "0"


def record_words(record: Record, now: float) -> tuple[str, str, bytes, str]:
    """Return a state as the scripts that store it take it."""
    final = "1" if record.state in READY_STATES else "0"
    return record.id, whole_seconds(record.expires, now), record.meta, final


def whole_seconds(expires: float, now: float) -> str:
    """Return the same as Redis' SET takes it: never less, at least 1."""
    return str(max(math.ceil(expires - now), 1)) if expires else "0"
