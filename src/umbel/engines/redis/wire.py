"""One connection to a Redis, packed and read with hiredis alone: redis-py's own way through a command costs as much
as Redis does.
"""

from __future__ import annotations

import _socket
import contextlib
import math
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any

import hiredis

from umbel.engines.redis import failures
from umbel.engines.redis.location import Location
from umbel.engines.redis.replies import LargeReplies, lacks_much

__all__ = ["NOTHING", "ReplyError", "Wire", "pack", "wait_readable"]

#: What is read where no whole reply has come.
NOTHING: Any = object()

_READ_SIZE = 65536
#: What comes in pieces no larger than this is nothing large.
_SMALL = 4096
ReplyError = hiredis.ReplyError


class Wire:
    """A socket on which Redis speaks RESP2. Not thread-safe; after any error it is broken and is to be closed."""

    def __init__(self, sock: Any, location: Location, seconds: float) -> None:
        self.socket = sock
        self.location = location
        self.seconds = seconds
        self.pid = os.getpid()
        self.used = time.monotonic()
        self._reader = hiredis.Reader(notEnoughData=NOTHING)
        #: Reads instead, from a large value on until nothing is left that has come with it.
        self._large: LargeReplies | None = None
        _set_deadline(sock, seconds)

    def exchange(self, request: bytes) -> Any:
        """Send one packed command and return its reply; an error of Redis is returned as a `hiredis.ReplyError`."""
        self.send(request)
        try:
            data = self.socket.recv(_READ_SIZE) or self._end()
            if len(data) > _SMALL and lacks_much(data):
                reply = self._read_large(data, time.monotonic() + self.seconds)
                self.used = time.monotonic()
                return reply
            self._reader.feed(data)
            reply = self._reader.gets()
        except OSError as error:
            raise self._broken(error, sent=True) from error
        except hiredis.ProtocolError as error:
            raise failures.closed(self.location, sent=True, why=error) from error
        if reply is NOTHING:
            reply = self._rest(time.monotonic() + self.seconds)
        self.used = time.monotonic()
        return reply

    def send(self, request: bytes) -> None:
        """Send packed commands."""
        try:
            self.socket.sendall(request)
        except OSError as error:
            raise self._broken(error, sent=True) from error

    def read(self, deadline: float) -> Any:
        """Return the next reply, waiting for it until `deadline` (monotonic)."""
        if self._large is not None:
            return self._read_large(b"", deadline)
        reply = self._reader.gets()
        return self._rest(deadline) if reply is NOTHING else reply

    def _rest(self, deadline: float) -> Any:
        """Read on until a reply is whole. A reply that comes in pieces may take as long as there are new pieces."""
        while True:
            try:
                data = self.socket.recv(_READ_SIZE)
            except OSError as error:
                raise self._broken(error, sent=True) from error
            if len(data) > _SMALL and not self._reader.has_data() and lacks_much(data):
                return self._read_large(data, deadline)
            self._feed(data, sent=True)
            reply = self._reader.gets()
            if reply is not NOTHING:
                return reply
            self._check(deadline, len(data))

    def _check(self, deadline: float, size: int) -> None:
        """Raise once the time is over, unless pieces as large as this one still come in."""
        if time.monotonic() > deadline and size < _READ_SIZE:
            raise failures.timed_out(self.location, self.seconds)

    def _read_large(self, data: bytes, deadline: float) -> Any:
        """Return a reply that begins in `data`, or in what is left of the bytes before it."""
        size = _READ_SIZE

        def receive(room: memoryview) -> int:
            nonlocal size
            self._check(deadline, size)
            size = self.socket.recv_into(room) or len(self._end())
            return size

        if self._large is None:
            self._large = LargeReplies(data, receive)
        self._large.receive = receive
        large = self._large
        try:
            reply = large.read()
        except OSError as error:
            raise self._broken(error, sent=True) from error
        except (ValueError, RecursionError) as error:
            raise failures.closed(self.location, sent=True, why=error) from error
        if not large.left:
            self._large = None
        return reply

    def _feed(self, data: bytes, *, sent: bool) -> None:
        if not data:
            raise failures.closed(self.location, sent=sent)
        self._reader.feed(data)

    def _end(self) -> bytes:
        raise failures.closed(self.location, sent=True)

    def receive(self, timeout: float) -> Any:
        """Return a reply that has come or comes within `timeout` seconds, else NOTHING."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                raise failures.closed(self.location, sent=True, why=error) from error
            if reply is not NOTHING:
                return reply
            if not self.readable(max(0.0, deadline - time.monotonic())):
                return NOTHING
            try:
                data = self.socket.recv(_READ_SIZE)
            except (BlockingIOError, TimeoutError):
                continue
            except OSError as error:
                raise self._broken(error, sent=True) from error
            self._feed(data, sent=True)

    def take(self) -> list[Any]:
        """Return the replies that have come, without waiting."""
        replies: list[Any] = []
        plain = not isinstance(self.socket, ssl.SSLSocket)
        while True:
            try:
                while (reply := self._reader.gets()) is not NOTHING:
                    replies.append(reply)
                if (plain and replies) or not (plain or self.readable(0.0)):
                    return replies
                data = self.socket.recv(_READ_SIZE, socket.MSG_DONTWAIT) if plain else self.socket.recv(_READ_SIZE)
            except hiredis.ProtocolError as error:
                raise failures.closed(self.location, sent=True, why=error) from error
            except (BlockingIOError, TimeoutError):
                return replies
            except OSError as error:
                raise self._broken(error, sent=True) from error
            self._feed(data, sent=True)

    def readable(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for bytes, or for the end of the connection."""
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise failures.closed(self.location, sent=False)
        return wait_readable([descriptor], timeout)

    def is_stale(self, health_check_interval: float) -> bool:
        """Tell whether an idle connection has ended meanwhile; after a long time it is asked for a sign of life."""
        idle = time.monotonic() - self.used
        if idle < 0.02:
            return False
        if self.socket.fileno() < 0 or self.readable(0.0):
            return True
        if not 0 < health_check_interval <= idle:
            return False
        try:
            return isinstance(self.exchange(_PING), ReplyError)
        except failures.RedisFailure:
            return True

    def _broken(self, error: OSError, *, sent: bool) -> failures.Unreachable:
        if isinstance(error, BlockingIOError | TimeoutError):
            return failures.timed_out(self.location, self.seconds, sent=sent)
        return failures.closed(self.location, sent=sent, why=error.strerror or error)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; in a forked child only the child's end of it."""
        with contextlib.suppress(OSError):
            self.socket.close()


def wait_readable(descriptors: Sequence[int], timeout: float) -> bool:
    """Wait up to `timeout` seconds until one of the descriptors has something to read, or has ended."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select(descriptors, (), (), timeout)[0])
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(math.ceil(timeout * 1000)))


def pack(args: Sequence[Any]) -> bytes:
    """Return a command as bytes."""
    return bytes(hiredis.pack_command(tuple(args)))


_PING = pack(("PING",))


def _set_deadline(sock: Any, seconds: float) -> None:
    """Set the deadline of every read and write; where possible in the kernel, which spares a poll before each."""
    plain = isinstance(sock, _socket.socket) and not isinstance(sock, ssl.SSLSocket) and os.name == "posix"
    if not plain:
        sock.settimeout(seconds)
        return
    sock.settimeout(None)
    wait = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
