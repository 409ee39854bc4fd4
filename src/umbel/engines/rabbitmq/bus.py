"""The control bus on RabbitMQ: one direct exchange, topics as routing keys, a queue of its own for each listener."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from umbel.core.errors import EncodeError
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.inbox import Inbox
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.publisher import Outgoing, Pool, Publisher
from umbel.engines.rabbitmq.tables import write_properties

__all__ = ["EXCHANGE", "RabbitBus"]

EXCHANGE = "umbel.bus"
#: Milliseconds that a payload waits for a listener that is slow.
_KEPT = 60_000


class RabbitBus:
    """Bus of `umbel.engine.seam` on one RabbitMQ vhost."""

    def __init__(self, location: Location, pool: Pool, publisher: Publisher) -> None:
        self._location = location
        self._pool = pool
        self._publisher = publisher
        self._lock = threading.Lock()
        self._declared = False
        self._properties = write_properties({}, {"delivery_mode": 1}, "application/octet-stream", "binary")

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        """Send payloads to every listener of `topic`; with none they are gone."""
        del now
        if len(topic.encode("utf-8", "surrogatepass")) > 255:
            raise EncodeError(f"the topic {topic[:60]!r}... is longer than the 255 bytes that AMQP allows")
        with self._lock:
            if not self._declared:
                link, confirms = self._pool.take()
                try:
                    declare_exchange(link)
                finally:
                    self._pool.give(link, confirms)
                self._declared = True
        try:
            # What nobody is bound for comes back, and that is the end of it.
            self._publisher.send([Outgoing(EXCHANGE, topic, self._properties, payload) for payload in payloads])
        except Exception:
            self._declared = False
            raise

    def listen(self, topics: Sequence[str]) -> RabbitListener:
        """Open a listener that hears what is sent from now on."""
        return RabbitListener(self._location, topics)


def declare_exchange(link: Link) -> None:
    """Make the exchange of the bus exist."""
    with link.questions(f"declare the exchange {EXCHANGE!r}") as channel:
        channel.exchange_declare(EXCHANGE, "direct", durable=True, auto_delete=False)


class RabbitListener:
    """One ear on the bus; after its connection was cut it listens again, and what was sent meanwhile is gone."""

    def __init__(self, location: Location, topics: Sequence[str]) -> None:
        self._topics = tuple(topics)
        self._inbox = Inbox(location, "listener", self._set_up)
        try:
            self._inbox.open()
        except BaseException:
            self._inbox.close()
            raise

    def _set_up(self, link: Link) -> None:
        declare_exchange(link)
        with link.questions("make a queue for the bus") as channel:
            queue = str(
                channel.queue_declare(
                    "", exclusive=True, auto_delete=True, durable=False, arguments={"x-message-ttl": _KEPT}
                ).queue
            )
            for topic in self._topics:
                channel.queue_bind(queue, EXCHANGE, topic)
        self._inbox.consume(link, queue)

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        """Return (topic, payload) pairs sent since the last call; wait up to `timeout` seconds for one."""
        return [(letter.routing_key, letter.body) for letter in self._inbox.receive(timeout)]

    def wake(self) -> None:
        """End a `receive` of another thread, or its next one."""
        self._inbox.wake()

    def close(self) -> None:
        """Stop listening."""
        self._inbox.close()
