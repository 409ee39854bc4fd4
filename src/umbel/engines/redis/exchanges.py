"""Named exchanges: bindings in kombu's sets, read by every producer, and where a message goes through them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from umbel.core.errors import Unroutable
from umbel.core.message import Message
from umbel.core.queues import Queue
from umbel.engine.exchanges import resolve
from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import Keys

__all__ = ["Exchanges"]

#: How long bindings that were read are believed (seconds).
_FRESH = 5.0
#: What kombu's topic exchange makes of a word of a binding key.
_WILDCARDS = {"*": r".*?[^\.]", "#": r".*?"}


class _Known(NamedTuple):
    kind: str
    bindings: tuple[tuple[str, str], ...]
    until: float


class Exchanges:
    """The exchanges of one Redis, with what was read of them lately."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._known: dict[str, _Known] = {}

    def declare(self, queues: Sequence[Queue]) -> None:
        """Store the queues' names and bindings, where kombu's producers find them too."""
        commands: list[tuple[bytes | str, ...]] = []
        for queue in queues:
            commands.append(("SADD", self._keys.key(b"umbel.queues"), queue.name))
            for exchange, kind, key in queue.routes():
                member = self._keys.sep.join((key.encode(), _pattern(kind, key), queue.name.encode()))
                commands.append(("SADD", self._keys.binding(exchange), member))
                if not queue.auto_delete and queue.expires is None:
                    commands.append(("SADD", self._keys.permanent_binding(exchange), member))
                commands.append(("HSET", self._keys.key(b"umbel.exchanges"), exchange, kind))
                self._known.pop(exchange, None)
        if commands:
            for answer in self._client.pipeline(commands):
                if isinstance(answer, Exception):
                    raise answer

    def route(self, message: Message) -> list[str]:
        """Return the names of the queues that a message goes to; [] when none is bound for it."""
        if not message.exchange:
            return [message.queue]
        known = self._known.get(message.exchange)
        if known is not None and known.until > time.monotonic():
            names = resolve(known.kind, message.queue, known.bindings)
            if names:
                return names
        known = self._known[message.exchange] = self._read(message.exchange)
        return resolve(known.kind, message.queue, known.bindings)

    def _read(self, exchange: str) -> _Known:
        members, kind = self._client.pipeline(
            [
                ("SMEMBERS", self._keys.binding(exchange)),
                ("HGET", self._keys.key(b"umbel.exchanges"), exchange),
            ]
        )
        for answer in (members, kind):
            if isinstance(answer, Exception):
                raise answer
        bindings, patterned = [], False
        for member in members:
            parts = member.split(self._keys.sep)
            if len(parts) != 3:
                # A queue's name may hold the separator (its own priority list); the first two parts never do.
                parts = [parts[0], parts[1] if len(parts) > 1 else b"", self._keys.sep.join(parts[2:])]
            key, pattern, queue = (part.decode("utf-8", "surrogateescape") for part in parts)
            patterned = patterned or bool(pattern)
            bindings.append((key, queue))
        # Celery tells nobody the type; only a topic has patterns.
        guessed = "topic" if patterned else "direct"
        return _Known(kind.decode() if kind else guessed, tuple(bindings), time.monotonic() + _FRESH)


def unroutable(message: Message) -> Unroutable:
    """Return the error for a message that no queue is bound for."""
    return Unroutable(
        f"task {message.task}: exchange {message.exchange!r} has no queue bound for routing key {message.queue!r}; "
        "declare the queue or correct the route"
    )


def _pattern(kind: str, key: str) -> bytes:
    """Return the regular expression that kombu keeps beside the key of a topic binding."""
    if kind != "topic":
        return b""
    return ("^" + r"\.".join(_WILDCARDS.get(word, word) for word in key.split(".")) + "$").encode()
