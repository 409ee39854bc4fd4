"""Delays in the broker: Celery's levels `celery_delayed_27` … `celery_delayed_0`, each twice as long as the next.

A message whose delay has bit n set waits 2^n seconds in queue n; then it moves on. At the end it reaches the topic
exchange `celery_delayed_delivery`. Celery binds exchanges there; umbel also binds queues, by a key that counts the
28 digits, so that messages for a queue (which Celery's scheme cannot delay) come back to exactly that queue.
Whole seconds pass here; what is left of a second passes in `lease`.
"""

from __future__ import annotations

import threading

from umbel.core.errors import EncodeError
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.failures import MissingQueue

__all__ = ["DELIVERY", "LEAD", "LEVELS", "Delays", "delayed_route", "undelayed"]

LEVELS = 28
DELIVERY = "celery_delayed_delivery"
#: Messages come back so many seconds before they are due, which hides the way through the levels.
LEAD = 0.6
_ANY_DELAY = "*." * LEVELS


def level(number: int) -> str:
    """Return the name of a level's exchange and queue."""
    return f"celery_delayed_{number}"


def delayed_route(routing_key: str, seconds: int) -> tuple[str, str]:
    """Return exchange and routing key that deliver after so many whole seconds (at least 1, at most 2^28-1).

    The message enters at the highest level that it waits in, past those that would only pass it on.
    """
    seconds = min(seconds, (1 << LEVELS) - 1)
    digits = f"{seconds:0{LEVELS}b}"
    key = f"{'.'.join(digits)}.{routing_key}"
    _check_length(routing_key)
    return level(seconds.bit_length() - 1), key


def _check_length(routing_key: str) -> None:
    size, most = len(routing_key.encode("utf-8", "surrogatepass")), 255 - len(_ANY_DELAY)
    if size > most:
        raise EncodeError(
            f"the queue or routing key {routing_key[:60]!r}... has {size} bytes, and one that takes delayed messages "
            f"has at most {most}: choose a shorter name"
        )


def undelayed(routing_key: str) -> str:
    """Return the routing key that a message had before it was delayed."""
    digits = routing_key[: 2 * LEVELS]
    if len(digits) == 2 * LEVELS and set(digits[::2]) <= {"0", "1"} and set(digits[1::2]) == {"."}:
        return routing_key[2 * LEVELS :]
    return routing_key


class Delays:
    """Makes the levels exist, and ties queues and exchanges to their end; each once per process."""

    def __init__(self, queue_type: str) -> None:
        self._type = queue_type
        self._lock = threading.Lock()
        self._ready = False
        self._bound: set[tuple[str, str]] = set()

    def leads_to(self, queue: str) -> bool:
        """Tell whether all is there for delayed messages of this queue."""
        return self._ready and ("queue", queue) in self._bound

    def prepare(self, link: Link, queue: str) -> None:
        """Make delayed messages for a queue come back to it."""
        self._tie(link, "queue", queue, queue)

    def prepare_exchange(self, link: Link, exchange: str, routing_key: str) -> None:
        """Make delayed messages for an exchange (topic or fanout) come back to it."""
        self._tie(link, exchange, exchange, routing_key)

    def bind_pattern(self, link: Link, queue: str, exchange: str, pattern: str) -> None:
        """Let a queue's binding to a topic exchange hold for keys that still begin with their delay."""
        if ("pattern", f"{queue} {exchange} {pattern}") not in self._bound:
            with link.questions(f"bind the queue {queue!r} for delayed messages") as channel:
                channel.queue_bind(queue, exchange, _ANY_DELAY + pattern)
            self._bound.add(("pattern", f"{queue} {exchange} {pattern}"))

    def forget(self) -> None:
        """Begin anew: something of it was deleted."""
        self._ready = False
        self._bound.clear()

    def _tie(self, link: Link, kind: str, target: str, key: str) -> None:
        if (kind, key) in self._bound and self._ready:
            return
        _check_length(key)
        if any(word in ("*", "#") for word in key.split(".")):
            raise EncodeError(f"the queue {target!r} cannot take delayed messages: '*' and '#' in a name mean any word")
        with self._lock:
            if not self._ready:
                self._declare_levels(link)
                self._ready = True
        with link.questions(f"bind {target!r} for delayed messages") as channel:
            if kind == "queue":
                channel.queue_bind(target, DELIVERY, _ANY_DELAY + key)
            else:
                channel.exchange_bind(target, DELIVERY, _ANY_DELAY + key)
        self._bound.add((kind, key))

    def _declare_levels(self, link: Link) -> None:
        try:
            # Whoever made them has chosen their type; what exists is used as it is.
            with link.questions("look for the delay levels") as channel:
                channel.exchange_declare(DELIVERY, "topic", passive=True)
                for number in range(LEVELS):
                    channel.queue_declare(level(number), passive=True)
        except MissingQueue:
            self._make_levels(link)

    def _make_levels(self, link: Link) -> None:
        with link.questions("declare the delay levels") as channel:
            channel.exchange_declare(DELIVERY, "topic", durable=True, auto_delete=False)
            for number in range(LEVELS):
                channel.exchange_declare(level(number), "topic", durable=True, auto_delete=False)
        for number in range(LEVELS):
            self._make_level(link, number)

    def _make_level(self, link: Link, number: int) -> None:
        name, below = level(number), DELIVERY if number == 0 else level(number - 1)
        arguments = {
            "x-queue-type": self._type,
            "x-overflow": "reject-publish",
            "x-message-ttl": (1 << number) * 1000,
            "x-dead-letter-exchange": below,
        }
        if self._type == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        try:
            with link.questions(f"declare the delay level {name}") as channel:
                channel.queue_declare(name, passive=True)
        except MissingQueue:
            with link.questions(f"declare the delay level {name}") as channel:
                channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        prefix = "*." * (LEVELS - 1 - number)
        with link.questions(f"bind the delay level {name}") as channel:
            channel.queue_bind(name, name, f"{prefix}1.#")
            channel.exchange_bind(below, name, f"{prefix}0.#")


def seconds_to_wait(due: float, now: float) -> int:
    """Return the whole seconds to spend in the levels; 0 when the rest passes in `lease`."""
    return max(0, int(due - now - LEAD))
