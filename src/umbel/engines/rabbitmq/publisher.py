"""Publishing: always confirmed, always mandatory, pipelined. A batch is written whole and awaited once.

Connections are kept in a pool and one call has one to itself, so threads never wait for each other's confirms.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from umbel.core.errors import OperationalError, PublishTimeout
from umbel.engines.rabbitmq.connection import Content, Link
from umbel.engines.rabbitmq.failures import LostConnection
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.mapping import frames, publish_method
from umbel.engines.rabbitmq.tables import TableError, read_properties

__all__ = ["Blocked", "Outgoing", "Pool", "Publisher"]

_ACK, _NACK, _RETURN = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78", b"\x00\x3c\x00\x32"
_read_long = Struct(">Q").unpack_from
_read_short = Struct(">H").unpack_from
#: Bytes written before a look at what has been confirmed.
_CHUNK = 131_072
#: Connections kept open while nobody publishes.
_MOST_IDLE = 8

STORED, NACKED = "", "nacked"


class Outgoing(NamedTuple):
    """One message to be published: where to, its property bytes, its body, and the id that it is told by."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes
    id: str = ""


class _Confirms:
    """What is known of the messages that one connection has sent."""

    def __init__(self, link: Link) -> None:
        self.sent = 0
        #: Number of each unconfirmed message → its place in the batch.
        self.pending: dict[int, int] = {}
        self.batch: Sequence[Outgoing] = ()
        self.answers: list[str] = []
        link.on_method = self._on_method
        link.on_content = self._on_content

    def begin(self, batch: Sequence[Outgoing]) -> None:
        """Expect answers for a new batch."""
        self.batch = batch
        self.answers = [STORED] * len(batch)
        self.pending = {self.sent + 1 + index: index for index in range(len(batch))}
        self.sent += len(batch)

    def end_at(self, index: int) -> None:
        """What of the batch follows `index` has not been sent, and will not be."""
        self.sent -= len(self.batch) - index
        self.pending = {number: place for number, place in self.pending.items() if place < index}
        self.answers[index:] = ["?"] * (len(self.batch) - index)

    def so_far(self) -> list[str]:
        """Return the answers, "?" for those that are not known."""
        unknown = set(self.pending.values())
        return ["?" if index in unknown else answer for index, answer in enumerate(self.answers)]

    def _on_method(self, method: bytes, arguments: bytes) -> None:
        if method not in (_ACK, _NACK):
            return
        (number,) = _read_long(arguments, 0)
        numbers = [number]
        if arguments[8] & 1:
            numbers = []
            for pending in self.pending:
                if pending > number:
                    break
                numbers.append(pending)
        for one in numbers:
            index = self.pending.pop(one, None)
            if index is not None and method == _NACK:
                self.answers[index] = NACKED

    def _on_content(self, method: bytes, content: Content) -> None:
        if method != _RETURN:
            return
        arguments, raw, _ = content
        end = 3 + arguments[2]
        reason = arguments[3:end].decode("utf-8", "replace")
        start, end = end + 1, end + 1 + arguments[end]
        exchange = arguments[start:end].decode("utf-8", "replace")
        routing_key = arguments[end + 1 : end + 1 + arguments[end]].decode("utf-8", "replace")
        try:
            name = str(read_properties(raw)[0].get("correlation_id", ""))
        except TableError:
            name = ""
        index = self._returned(exchange, routing_key, name)
        if index is not None:
            self.answers[index] = f"{_read_short(arguments, 0)[0]} {reason}"

    def _returned(self, exchange: str, routing_key: str, name: str) -> int | None:
        """Find the message that came back: the oldest unconfirmed one that looks like it."""
        fits = [
            index
            for index in self.pending.values()
            if not self.answers[index]
            and (self.batch[index].exchange, self.batch[index].routing_key) == (exchange, routing_key)
        ]
        named = [index for index in fits if self.batch[index].id == name]
        return next(iter(named or fits), None)


class Blocked(PublishTimeout):
    """The server takes no messages now, and will store what is on its way to it when it does again."""

    link: Link
    confirms: _Confirms

    @classmethod
    def of(cls, link: Link, confirms: _Confirms) -> Blocked:
        """Return the error for a batch of which something may be on its way."""
        error = cls(_blocked(link) + "; what was on its way is stored then")
        error.link, error.confirms = link, confirms
        return error


class Pool:
    """The connections that are not consuming: one call has one to itself, and gives it back."""

    def __init__(self, location: Location, purpose: str = "publisher") -> None:
        self._location = location
        self._purpose = purpose
        self._idle: deque[tuple[Link, _Confirms]] = deque()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def take(self) -> tuple[Link, _Confirms]:
        """Return a connection that works, opened if need be."""
        if self._pid != os.getpid():
            self._forget()
        while True:
            try:
                link, confirms = self._idle.pop()
            except IndexError:
                return self._open()
            if link.usable:
                try:
                    link.read()  # tells of a connection that ended while nobody looked
                except OperationalError:
                    continue
                return link, confirms

    def give(self, link: Link, confirms: _Confirms) -> None:
        """Take a connection back."""
        if link.usable and len(self._idle) < _MOST_IDLE:
            self._idle.append((link, confirms))
        else:
            link.close()

    def _open(self) -> tuple[Link, _Confirms]:
        link = Link(self._location, self._purpose)
        link.open()
        try:
            with link.lock, link.asking():
                link.channel().confirm_select()
        except (OSError, ValueError) as error:
            raise link.fail(error, "turn on publisher confirms") from error
        return link, _Confirms(link)

    def _forget(self) -> None:
        """After a fork: the connections are the parent's; only this process' copies of the sockets are closed."""
        with self._lock:
            if self._pid != os.getpid():
                idle, self._idle = self._idle, deque()
                self._pid = os.getpid()
                for link, _ in idle:
                    link.close()

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            link, _ = self._idle.pop()
            link.close()


class Publisher:
    """Sends batches and says what became of each message."""

    def __init__(self, location: Location, pool: Pool) -> None:
        self._location = location
        self.pool = pool
        self._methods: dict[tuple[str, str], bytes] = {}

    def send(self, batch: Sequence[Outgoing], done: list[str] | None = None) -> list[str]:
        """Publish a batch; return for each message "" (stored), "nacked", or "<code> <why>" when it came back.

        Raises OperationalError when answers are missing at the deadline or the connection is lost. `done` is then
        filled with the answers so far, "?" for those that are not known.
        """
        if not batch:
            return []
        link, confirms = self.pool.take()
        kept = False
        try:
            with link.lock:
                self._wait_until_taken(link)
                confirms.begin(batch)
                try:
                    self._write(link, confirms, batch)
                    self._await(link, confirms)
                except OperationalError as error:
                    if done is not None:
                        done[:] = confirms.so_far()
                    kept = isinstance(error, Blocked)
                    raise
                except BaseException:
                    # A signal's handler (a soft time limit, Ctrl-C) has cut this off: the next batch would get this
                    # one's answers, or be written behind half a frame.
                    link.fail(LostConnection("publishing was interrupted"), "publish")
                    raise
                return confirms.answers
        finally:
            if not kept:
                self.pool.give(link, confirms)

    def wait_on(self, blocked: Blocked) -> list[str]:
        """Wait for what was on its way when the server blocked; return the answers to that whole batch.

        Raises `blocked` again while that lasts. What is unknown once the connection is lost is answered with "?".
        """
        link, confirms = blocked.link, blocked.confirms
        try:
            with link.lock:
                if link.usable:
                    link.read()
                    self._await(link, confirms)
        except Blocked:
            raise
        except OperationalError:
            pass
        self.pool.give(link, confirms)
        return confirms.so_far()

    def _wait_until_taken(self, link: Link) -> None:
        """Wait while the server blocks publishers: what is not sent cannot be stored twice."""
        until = time.monotonic() + self._location.read_timeout
        while link.blocked:
            left = until - time.monotonic()
            if left <= 0:
                raise OperationalError(_blocked(link))
            if link.wait(left):
                link.read()

    def _write(self, link: Link, confirms: _Confirms, batch: Sequence[Outgoing]) -> None:
        frame_max, methods = link.frame_max, self._methods
        buffer: list[bytes] = []
        size = 0
        for index, item in enumerate(batch):
            method = methods.get((item.exchange, item.routing_key)) or self._method(item)
            data = frames(method, item.properties, item.body, frame_max)
            buffer.append(data)
            size += len(data)
            if size > _CHUNK:
                link.send(b"".join(buffer))
                buffer.clear()
                size = 0
                link.read()
                if link.blocked:
                    self._hold_back(link, confirms, index + 1)
        if buffer:
            link.send(b"".join(buffer))

    def _hold_back(self, link: Link, confirms: _Confirms, index: int) -> None:
        """Send no more until the server takes messages again: what is not sent cannot be stored twice."""
        try:
            self._wait_until_taken(link)
        except LostConnection:
            raise
        except OperationalError as error:
            confirms.end_at(index)
            raise Blocked.of(link, confirms) from error

    def _method(self, item: Outgoing) -> bytes:
        method = publish_method(item.exchange, item.routing_key)
        if len(self._methods) < 1000:
            self._methods[item.exchange, item.routing_key] = method
        return method

    def _await(self, link: Link, confirms: _Confirms) -> None:
        pending = confirms.pending
        seconds = self._location.read_timeout
        until = time.monotonic() + seconds
        while pending:
            before = len(pending)
            left = until - time.monotonic()
            if left <= 0:
                if link.blocked:
                    raise Blocked.of(link, confirms)
                text = self._silent(link, len(pending), seconds)
                # The connection cannot be used on: late confirms would be taken for those of the next batch.
                link.failure = PublishTimeout(text)
                raise link.failure
            if link.wait(left):
                link.read()
            if len(pending) < before:
                until = time.monotonic() + seconds

    @staticmethod
    def _silent(link: Link, count: int, seconds: float) -> str:
        return (
            f"RabbitMQ at {link.address.text} did not confirm {count} messages within {seconds:g} s: it hangs, is "
            "overloaded or cannot be reached; the messages may or may not be stored"
        )


def _blocked(link: Link) -> str:
    return (
        f"RabbitMQ at {link.address.text} takes no messages now ({link.blocked}): a resource alarm is on. Free memory "
        "or disk space on the server (rabbitmqctl status shows which); publishing goes on by itself after that"
    )
