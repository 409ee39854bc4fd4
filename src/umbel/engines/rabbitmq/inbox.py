"""Whole queues read by one connection: what the bus, results as messages and dead letters have in common."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError

from umbel.core.errors import OperationalError
from umbel.engines.rabbitmq.connection import Content, Link
from umbel.engines.rabbitmq.failures import LostConnection, translate
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.tables import TableError, read_properties

__all__ = ["Inbox", "Letter"]

_DELIVER = b"\x00\x3c\x00\x3c"
_read_long = Struct(">Q").unpack_from


class Letter(NamedTuple):
    """One message as it was delivered."""

    number: int
    routing_key: str
    properties: dict[str, Any]
    headers: dict[str, Any]
    body: bytes


class Inbox:
    """One connection that consumes; opened by `open`, and again after it was lost. One thread reads at a time."""

    def __init__(self, location: Location, purpose: str, set_up: Callable[[Link], None]) -> None:
        self._location = location
        self._purpose = purpose
        #: Declares and consumes on a fresh connection.
        self._set_up = set_up
        self._arrived: deque[Content] = deque()
        self.link: Link | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    @property
    def usable(self) -> bool:
        """True while the connection stands, in the process that opened it."""
        return self.link is not None and self.link.usable

    def open(self) -> Link:
        """Return the connection, opened and set up if need be."""
        if self.link is not None and self.link.usable:
            return self.link
        self.drop()
        link = Link(self._location, self._purpose, heartbeat=self._location.heartbeat)
        link.on_content = self._on_content
        link.open()
        self.link = link
        try:
            self._set_up(link)
        except BaseException:
            self.drop()
            raise
        return link

    def _on_content(self, method: bytes, content: Content) -> None:
        if method == _DELIVER:
            self._arrived.append(content)

    @staticmethod
    @contextmanager
    def asking(link: Link, doing: str) -> Iterator[Any]:
        """Give py-amqp's channel of messages; errors come out translated, and end the connection."""
        with link.lock:
            if not link.usable:
                raise link.failure or LostConnection(f"cannot {doing}: there is no connection")
            try:
                with link.asking():
                    yield link.channel()
            except (OSError, AMQPError, ValueError) as error:
                translated = translate(error, link.address, doing)
                link.fail(error, doing)
                raise translated from error

    def consume(self, link: Link, queue: str, *, no_ack: bool = True) -> str:
        """Have a queue pushed to this connection; return the consumer's tag."""
        with self.asking(link, f"consume from the queue {queue!r}") as channel:
            return str(channel.basic_consume(queue, consumer_tag=f"umbel {queue}", no_ack=no_ack))

    def receive(self, timeout: float) -> list[Letter]:
        """Return what has arrived; wait up to `timeout` seconds for something, `wake` or the end of the connection."""
        link = self._alive()
        until = time.monotonic() + timeout
        woken = False
        while not self._arrived and not woken and (left := until - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(link.descriptor, select.POLLIN)
            poll.register(self._read, select.POLLIN)
            for descriptor, _event in poll.poll(min(left, link.heartbeat / 4 or left) * 1000):
                if descriptor == self._read:
                    woken = True
                    with suppress(BlockingIOError):
                        os.read(self._read, 4096)
            self._look_after(link)
        letters = []
        while self._arrived:
            with suppress(TableError):
                letters.append(_letter(self._arrived.popleft()))
        return letters

    def _alive(self) -> Link:
        """Return a connection that stands: while nobody reads the server may have given up the one that was open."""
        known = self.link
        link = self.open()
        try:
            self._look_after(link)
        except OperationalError:
            if link is not known:
                raise
            link = self.open()
        return link

    @staticmethod
    def _look_after(link: Link) -> None:
        """Take in what has arrived, and give and expect signs of life."""
        if link.usable:
            link.read()
            link.beat(time.monotonic())
        if not link.usable:
            raise link.failure or LostConnection("the connection to RabbitMQ was closed")

    def wake(self) -> None:
        """End a `receive` of another thread, or the next one that has to wait."""
        with suppress(BlockingIOError, OSError):
            os.write(self._write, b"\0")

    def drop(self) -> None:
        """Close the connection; what has not been read goes with it."""
        link, self.link = self.link, None
        self._arrived.clear()
        if link is not None:
            with suppress(OperationalError):
                link.close()

    def close(self) -> None:
        """Close the connection for good."""
        self.drop()
        for descriptor in (self._read, self._write):
            with suppress(OSError):
                os.close(descriptor)


def _letter(content: Content) -> Letter:
    arguments, raw, body = content
    at = 1 + arguments[0]
    (number,) = _read_long(arguments, at)
    at += 9
    at += 1 + arguments[at]
    routing_key = arguments[at + 1 : at + 1 + arguments[at]].decode("utf-8", "replace")
    properties, headers, _ = read_properties(raw)
    return Letter(int(number), routing_key, properties, headers, body)
