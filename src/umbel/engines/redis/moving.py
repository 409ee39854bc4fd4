"""Large messages are leased past Redis' scripts: what Redis hands to Lua is copied several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import CLAIM

__all__ = ["Move", "Moving"]

#: Waits for messages that are on their way; returns what the lease script answers where it has taken some itself.
Move = Callable[[], list[Any]]


class Moving:
    """The way of large messages, over connections of its own: others go on meanwhile."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = Client(client.location)
        self._keys = keys

    def begin(self, owner: str, call: str, answer: Any) -> Move:
        """Move the messages that the lease script has numbered, and claim them in the same step."""
        server, _, (name, text, count), _, revoked, _ = answer
        first = int(text)
        moves = [
            ("LMOVE", self._keys.key(name), self._keys.large(place), "RIGHT", "LEFT")
            for place in range(first, first + count)
        ]
        claim = ("EVAL", CLAIM.source, 1, self._keys.prefix, owner, name, call, first, count)
        replies = self._client.begin([("MULTI",), *moves, claim, ("EXEC",)])

        def finish() -> list[Any]:
            *queued, done = replies()
            entries = []
            # Else Redis' memory is full, or the user may not: nothing has been done.
            if not any(isinstance(reply, Exception) for reply in (*queued, done)):
                raws = [raw for raw in done[:count] if raw is not None]
                entries = [[name, text, *raws]] if raws and done[-1] == len(raws) else []
            return [server, b"", entries, 0, revoked, 0]

        return finish

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
