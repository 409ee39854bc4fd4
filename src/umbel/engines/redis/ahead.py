"""Leases that are on their way while their owner deals with others, over connections of their own.

Large messages go past Redis' scripts: what Redis hands to Lua is copied several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umbel.engines.redis.connection import Client, Script
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import CLAIM

__all__ = ["Ahead", "Answer"]

#: Waits for what is on its way; returns what the lease script answers.
Answer = Callable[[], Any]


class Ahead:
    """Calls whose answers are waited for later."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = Client(client.location)
        self._keys = keys

    def ask(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Answer:
        """Run a script."""
        replies = self._client.begin([script.command(keys, args)])

        def finish() -> Any:
            (answer,) = replies()
            if getattr(answer, "code", "") == "NOSCRIPT":
                return self._client.script(script, keys, args)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return finish

    def move(self, owner: str, call: str, answer: Any) -> Answer:
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
