"""Named exchanges: bindings in kombu's sets, read by every producer, and where a message goes through them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from umbel.core.errors import NotSupportedError, Unroutable
from umbel.core.message import Message
from umbel.core.queues import Broadcast, Queue
from umbel.engine.exchanges import resolve
from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import REMOVE

__all__ = ["Exchanges"]

#: How long bindings that were read are believed (seconds).
_FRESH = 5.0
#: What kombu's topic exchange makes of a word of a binding key.
_WILDCARDS = {"*": r".*?[^\.]", "#": r".*?"}


#: What Redis' lists cannot do, as fields and as arguments of a queue.
_IMPOSSIBLE = {
    "message_ttl": "x-message-ttl",
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
}


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
        #: Queue → the fanout exchanges that it is bound to, as declared here.
        self.fanouts: dict[str, tuple[str, ...]] = {}
        #: Queue → after how many milliseconds without use its messages go (kombu: `x-expires`), as declared here.
        self.expiring: dict[str, int] = {}

    def declare(self, queues: Sequence[Queue]) -> None:
        """Store the queues' names and bindings, where kombu's producers find them too.

        Raises NotSupportedError for what Redis' lists cannot do.
        """
        commands: list[tuple[Any, ...]] = []
        for queue in queues:
            _check(queue)
        for queue in queues:
            for exchange, kind, _ in queue.routes():
                commands.append(("HSET", self._keys.key(b"umbel.exchanges"), exchange, kind))
                self._known.pop(exchange, None)
            if not queue.no_declare:
                commands += self._bind(queue)
        if commands:
            self._run(commands)

    def _bind(self, queue: Queue) -> list[tuple[Any, ...]]:
        commands: list[tuple[Any, ...]] = [("SADD", self._keys.key(b"umbel.queues"), queue.name)]
        fanouts = tuple(dict.fromkeys(exchange for exchange, kind, _ in queue.routes() if kind == "fanout"))
        if fanouts:
            self.fanouts[queue.name] = fanouts
        # kombu's queues at a fanout exchange are ears, no lists: these are kept apart from theirs.
        commands += [("SADD", self._keys.fanout_queues(exchange), queue.name) for exchange in fanouts]
        parts = [name for _, name in self._keys.lists_of([queue.name])]
        parts += [b"\0" + exchange.encode() for exchange in fanouts]
        for exchange, kind, key in queue.routes():
            # Of a fanout too: a Celery producer that was not told the exchange's type takes it for a direct one.
            member = self._keys.sep.join((key.encode(), _pattern(kind, key), queue.name.encode()))
            commands.append(("SADD", self._keys.binding(exchange), member))
            parts.append(b"\1%b\0%b" % (exchange.encode(), member))
            if not queue.auto_delete and queue.expires is None:
                commands.append(("SADD", self._keys.permanent_binding(exchange), member))
        if isinstance(queue, Broadcast):
            commands.append(("SADD", self._keys.key(b"umbel.copy." + queue.name.encode()), *parts))
            commands.append(("ZADD", self._keys.key(b"umbel.copies"), "NX", 0, queue.name))
        expires = _expires(queue)
        if expires:
            self.expiring[queue.name] = expires
        return commands + self.renewals([queue.name])

    def renewals(self, queues: Iterable[str]) -> list[tuple[Any, ...]]:
        """Return the commands that let the messages of those queues that expire live on."""
        expiring = [name for name in queues if name in self.expiring]
        return [
            ("PEXPIRE", self._keys.key(name), self.expiring[queue]) for queue, name in self._keys.lists_of(expiring)
        ]

    def keep(self, queues: Iterable[str]) -> None:
        """Let the messages of those queues that expire live on: somebody consumes them."""
        commands = self.renewals(queues) if self.expiring else []
        if commands:
            self._run(commands)

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete copies of Broadcast queues with all that is in them."""
        if queues:
            self._client.script(REMOVE, [self._keys.prefix], [queue.name for queue in queues])
        for queue in queues:
            self.fanouts.pop(queue.name, None)

    def _run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        answers = self._client.pipeline(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def route(self, message: Message) -> tuple[list[str], bytes]:
        """Return the names of the queues that a message goes to, and the channel of a fanout exchange (else b"")."""
        if not message.exchange:
            return [message.queue], b""
        known = self._known.get(message.exchange)
        if known is not None and known.until > time.monotonic():
            names = resolve(known.kind, message.queue, known.bindings)
            if names:
                return names, b""
        known = self._read(message.exchange)
        names = resolve(known.kind, message.queue, known.bindings)
        if known.kind == "fanout":
            # Read anew each time: a worker hears what is sent from the moment that it is there.
            return names, self._keys.channel(message.exchange, message.queue)
        self._known[message.exchange] = known
        return names, b""

    def _read(self, exchange: str) -> _Known:
        members, kind, hearing = self._run(
            [
                ("SMEMBERS", self._keys.binding(exchange)),
                ("HGET", self._keys.key(b"umbel.exchanges"), exchange),
                ("SMEMBERS", self._keys.fanout_queues(exchange)),
            ]
        )
        until = time.monotonic() + _FRESH
        if kind == b"fanout":
            return _Known("fanout", tuple(("", name.decode("utf-8", "surrogateescape")) for name in hearing), until)
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
        return _Known(kind.decode() if kind else guessed, tuple(bindings), until)


def _check(queue: Queue) -> None:
    """Raise NotSupportedError for what Redis' lists cannot do."""
    arguments = queue.queue_arguments or {}
    for name, argument in _IMPOSSIBLE.items():
        if getattr(queue, name) is not None or argument in arguments:
            raise NotSupportedError(
                f"queue {queue.name!r} has {name}, which Redis cannot keep (kombu passes over it there): remove it, "
                "and give tasks `expires` instead; RabbitMQ can"
            )
    if queue.auto_delete and not isinstance(queue, Broadcast):
        raise NotSupportedError(
            f"queue {queue.name!r} is auto_delete (or exclusive), which Redis does not know: give it `expires`, or "
            "make it a Broadcast if every worker is to have its own"
        )


def _expires(queue: Queue) -> int:
    """Return after how many milliseconds a queue goes; 0 for never."""
    if queue.expires is not None:
        return int(queue.expires * 1000)
    return int((queue.queue_arguments or {}).get("x-expires") or 0)


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
