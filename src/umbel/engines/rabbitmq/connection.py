"""One AMQP connection: py-amqp greets, logs in and asks; messages are read and written here, frames at a time.

Channel 1 carries messages and is read by this module alone; channel 2 is for questions (declare, purge …), so that
an error in answering one takes no deliveries with it. Every call that waits has a deadline. A link is used under its
`lock`; once it has failed it stays failed, and its owner opens another one.
"""

from __future__ import annotations

import os
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from typing import Any

import amqp
from amqp.exceptions import AMQPError, error_for_code

from umbel.core.errors import OperationalError
from umbel.engines.rabbitmq.failures import LostConnection, translate
from umbel.engines.rabbitmq.location import Address, Location, resolve_password

__all__ = ["MESSAGES", "Content", "Link"]

#: The channel of messages, and that of questions.
MESSAGES, QUESTIONS = 1, 2

_read_frame = Struct(">BHI").unpack_from
_read_long = Struct(">Q").unpack_from
_FRAME_END = 0xCE
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_CHUNK = 262_144
_BLOCKED, _UNBLOCKED = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"
#: Methods that are followed by a message: deliver, return.
_WITH_CONTENT = (b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32")
_CHANNEL_CLOSE = b"\x00\x14\x00\x28"
_WANT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_BROKEN = (OSError, AMQPError, ValueError)

#: A method with a message: its arguments, the message's property bytes, its body.
Content = tuple[bytes, bytes, bytes]


class _Wire(amqp.Connection):  # type: ignore[misc]
    """py-amqp's connection, whose reading is done by a link once both sides have agreed."""

    link: Link | None = None

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read what there is, and pass on what is not a message."""
        if self.link is None:
            return super().blocking_read(timeout)
        self.link.pump_for_answer()
        return True


class Link:
    """One connection to one of the servers of a location."""

    def __init__(self, location: Location, purpose: str, *, heartbeat: float = 0.0) -> None:
        self.location = location
        self.purpose = purpose
        self.lock = threading.RLock()
        self.address: Address = location.addresses[0]
        #: Why the server takes no messages now; "" when it does.
        self.blocked = ""
        #: The error that ended it.
        self.failure: OperationalError | None = None
        self.on_content: Callable[[bytes, Content], None] = lambda _method, _content: None
        self.on_method: Callable[[bytes, bytes], None] = lambda _method, _arguments: None
        self._heartbeat_wanted = heartbeat
        self._wire: Any = None
        self._sock: Any = None
        self._poll = select.poll()
        self._rest = b""
        self._pending: tuple[bytes, bytes] | None = None
        self._size = 0
        self._properties = b""
        self._body: list[bytes] = []
        #: What py-amqp is to see, once the frames read with it have been sorted: it may read on from within.
        self._others: deque[tuple[int, int, bytes]] = deque()
        self._answer_by = 0.0
        self._sent_at = self._heard_at = 0.0
        self.pid = os.getpid()

    # --- opening and closing ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect to the first server that answers; raise the error of the last one tried."""
        addresses = list(self.location.addresses)
        if self.location.shuffle:
            random.shuffle(addresses)
        for number, address in enumerate(addresses, start=1):
            self.address = address
            try:
                self._connect(address)
            except _BROKEN as error:
                self._drop()
                if number == len(addresses):
                    self.failure = translate(error, address, "connect")
                    raise self.failure from error
            else:
                return

    def _connect(self, address: Address) -> None:
        location = self.location
        wire = _Wire(
            host=f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}",
            userid=address.user,
            password=resolve_password(address.password),
            virtual_host=address.vhost,
            login_method=location.login_method,
            login_response=location.login_response,
            client_properties={"connection_name": f"umbel {self.purpose}", **location.client_properties},
            ssl=self._tls(address),
            connect_timeout=location.connect_timeout,
            heartbeat=self._heartbeat_wanted,
            socket_settings=_socket_settings(),
        )
        self._wire = wire
        wire.connect()
        transport = wire.transport
        self._sock = transport.sock
        self._sock.setblocking(False)
        # What py-amqp has read beyond the greeting, and its writing, are ours from here on.
        self._rest = bytes(transport._read_buffer)
        transport._write = self._write_all
        self._poll.register(self._sock, select.POLLIN)
        self._sent_at = self._heard_at = time.monotonic()
        wire.link = self
        with self.asking():
            wire.channel(MESSAGES)

    def _tls(self, address: Address) -> Any:
        if not address.tls:
            return False
        if "context" in self.location.tls:
            return dict(self.location.tls)
        verify = self.location.tls.get("cert_reqs", ssl.CERT_REQUIRED)
        # Without a name py-amqp checks no certificate's name, whatever else it checks.
        named = {} if verify == ssl.CERT_NONE else {"server_hostname": address.host}
        return {**named, **self.location.tls, "cert_reqs": verify}

    @property
    def usable(self) -> bool:
        """True while it is open, in the process that opened it."""
        return self.failure is None and self._sock is not None and self.pid == os.getpid()

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor, to wait on beside others."""
        return -1 if self._sock is None else int(self._sock.fileno())

    @property
    def heartbeat(self) -> float:
        """The agreed seconds between two signs of life; 0 for none."""
        return 0.0 if self._wire is None else float(self._wire.heartbeat or 0)

    @property
    def frame_max(self) -> int:
        """The largest frame that both sides agreed on, in bytes."""
        return int(self._wire.frame_max)

    def close(self) -> None:
        """Say goodbye within two seconds, or go without."""
        if self.pid != os.getpid():
            self._drop()
            return
        with self.lock:
            if self.usable:
                self._answer_by = time.monotonic() + 2.0
                with suppress(*_BROKEN, OperationalError):
                    self._wire.close()
            self.failure = self.failure or LostConnection("this connection was closed")
            self._drop()

    def _drop(self) -> None:
        """Close the socket without a word: the words may be a parent process' own."""
        wire, self._wire, self._sock = self._wire, None, None
        if wire is None:
            return
        transport = wire._transport
        if transport is not None and transport.sock is not None:
            with suppress(OSError):
                os.close(transport.sock.detach())
            transport.sock, transport.connected = None, False
        wire.channels = None

    def fail(self, error: BaseException, doing: str) -> OperationalError:
        """End the connection because of `error`; return the error to raise."""
        if self.failure is None:
            self.failure = translate(error, self.address, doing)
        with self.lock:
            self._drop()
        return self.failure

    # --- questions -------------------------------------------------------------------------------------------

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Give the questions asked inside `read_timeout` seconds in all."""
        before, self._answer_by = self._answer_by, time.monotonic() + self.location.read_timeout
        try:
            yield
        finally:
            self._answer_by = before

    @contextmanager
    def questions(self, doing: str) -> Iterator[Any]:
        """Give py-amqp's channel for questions, locked; errors come out translated.

        A refusal closes that channel only, and the next question opens another one.
        """
        with self.lock:
            if not self.usable:
                raise self.failure or LostConnection(f"cannot {doing}: there is no connection")
            try:
                with self.asking():
                    channel = self._wire.channel(QUESTIONS)
                    yield channel
            except amqp.exceptions.ChannelError as error:
                # py-amqp opens the channel again by itself once it was refused.
                raise translate(error, self.address, doing) from error
            except _BROKEN as error:
                raise self.fail(error, doing) from error

    def channel(self) -> Any:
        """Return py-amqp's view of the channel of messages (to be used within `asking`)."""
        return self._wire.channel(MESSAGES)

    def pump_for_answer(self) -> None:
        """Read until something came or the time for the answer is over."""
        left = self._answer_by - time.monotonic()
        if left <= 0 or not self.wait(left):
            raise TimeoutError("no answer in time")
        self._receive()

    # --- bytes -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write frames; LostConnection when that does not succeed in time."""
        with self.lock:
            if not self.usable:
                raise self.failure or LostConnection("there is no connection to RabbitMQ")
            try:
                self._write_all(data)
            except _BROKEN as error:
                raise self.fail(error, "send") from error

    def _write_all(self, data: Any) -> None:
        view = memoryview(data)
        deadline = 0.0
        while view:
            try:
                view = view[self._sock.send(view) :]
            except _WANT:
                deadline = deadline or time.monotonic() + self.location.write_timeout
                left = deadline - time.monotonic()
                if left <= 0 or not select.select((), (self._sock,), (), left)[1]:
                    raise TimeoutError("the server takes no data") from None
        self._sent_at = time.monotonic()

    def wait(self, timeout: float) -> bool:
        """Tell whether there is something to read within `timeout` seconds."""
        pending = getattr(self._sock, "pending", None)
        if pending is not None and pending():
            return True
        return bool(self._poll.poll(timeout * 1000))

    def read(self) -> bool:
        """Take in what has arrived without waiting; True if anything had. LostConnection when the link has ended."""
        with self.lock:
            if not self.usable:
                raise self.failure or LostConnection("there is no connection to RabbitMQ")
            try:
                return self._receive()
            except _BROKEN as error:
                raise self.fail(error, "receive") from error

    def _receive(self) -> bool:
        got = False
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except _WANT:
                return got
            if not data:
                raise ConnectionResetError("the server closed connection")
            got = True
            self._heard_at = time.monotonic()
            self._feed(self._rest + data if self._rest else data)
            while self._others:
                self._wire.on_inbound_frame(self._others.popleft())
            if len(data) < _CHUNK and not isinstance(self._sock, ssl.SSLSocket):
                return True

    def beat(self, now: float) -> None:
        """Send a sign of life if one is due; fail when the server has been silent for two beats."""
        beat = self.heartbeat
        if not beat or not self.usable:
            return
        if now - self._heard_at > 2 * beat:
            error = LostConnection(f"RabbitMQ at {self.address.text} gave no sign of life for {2 * beat:.0f} s")
            self.fail(error, "receive")
        elif now - self._sent_at > beat / 2:
            with suppress(OperationalError):
                self.send(_HEARTBEAT)

    # --- frames ----------------------------------------------------------------------------------------------

    def _feed(self, buf: bytes) -> None:
        at, length = 0, len(buf)
        while length - at > 7:
            kind, channel, size = _read_frame(buf, at)
            end = at + 7 + size
            if end >= length:
                break
            if buf[end] != _FRAME_END:
                raise ValueError("the server sent something that is not AMQP")
            start, at = at + 7, end + 1
            if channel == MESSAGES:
                if kind == 3:
                    self._on_body(buf[start:end])
                elif kind == 2:
                    self._on_header(buf, start, end)
                else:
                    self._on_message_method(buf[start:end])
            elif kind == 1:
                self._on_other(channel, buf[start:end])
        self._rest = buf[at:]

    def _on_message_method(self, frame: bytes) -> None:
        method = frame[:4]
        if method in _WITH_CONTENT:
            self._pending = (method, frame[4:])
        elif method == _CHANNEL_CLOSE:
            end = 7 + frame[6]
            raise error_for_code(
                int.from_bytes(frame[4:6], "big"), frame[7:end].decode("utf-8", "replace"), (0, 0), AMQPError
            )
        else:
            self.on_method(method, frame[4:])
            if self._answer_by:
                self._others.append((1, MESSAGES, frame))

    def _on_header(self, buf: bytes, start: int, end: int) -> None:
        (self._size,) = _read_long(buf, start + 4)
        self._properties = buf[start + 12 : end]
        self._body = []
        if not self._size:
            self._finish(b"")

    def _on_body(self, part: bytes) -> None:
        if len(part) == self._size and not self._body:
            self._finish(part)
            return
        self._body.append(part)
        self._size -= len(part)
        if self._size <= 0:
            self._finish(b"".join(self._body))

    def _finish(self, body: bytes) -> None:
        pending, self._pending, self._body, self._size = self._pending, None, [], 0
        if pending is None:
            raise ValueError("the server sent a message that nothing announced")
        self.on_content(pending[0], (pending[1], self._properties, body))

    def _on_other(self, channel: int, frame: bytes) -> None:
        if channel == 0 and frame[:4] == _BLOCKED:
            self.blocked = frame[5:].decode("utf-8", "replace") or "low on resources"
        elif channel == 0 and frame[:4] == _UNBLOCKED:
            self.blocked = ""
        else:
            self._others.append((1, channel, frame))


def _socket_settings() -> dict[int, int]:
    settings = {}
    for name, value in (("TCP_USER_TIMEOUT", 20_000), ("TCP_NODELAY", 1)):
        option = getattr(socket, name, None)
        if option is not None:
            settings[option] = value
    return settings
