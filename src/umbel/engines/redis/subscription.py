"""Channels that one connection listens to. It is opened at first use and, after a failure or a fork, opened again with
all of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from umbel.core.errors import OperationalError
from umbel.engines.redis import failures
from umbel.engines.redis.connection import Client, Link
from umbel.engines.redis.wire import wait_readable

__all__ = ["Subscription"]

#: Channels in one SUBSCRIBE.
_CHUNK = 1000
#: Where values are read, channels are left together with the next SUBSCRIBE, or once they are so many.
_MANY = 100
_MESSAGES = (b"message", b"pmessage")
_BEGINNINGS = (b"subscribe", b"psubscribe")

_Heard = list[tuple[bytes, bytes | None]]


class Subscription:
    """What `receive` returns comes from channels that were subscribed to. `receive` belongs to one thread at a time;
    everything else may be called from any thread and never fails: what is wrong is for `receive` to tell.

    `values`: a channel is called as the key that keeps what was last published there. Where the server speaks RESP3,
    it is read behind each SUBSCRIBE in the same round trip, and `receive` returns it as if it had come just now.
    """

    def __init__(self, client: Client, *, patterns: bool = False, values: bool = False) -> None:
        self._client = client
        #: Whether channels are patterns of their names, as glob has them.
        self._p = "P" if patterns else ""
        self._values = values
        #: Whether this connection reads values, and the channels of each MGET that is not answered yet.
        self._reads = False
        self._asked_for: deque[list[bytes]] = deque()
        #: Channels that are to be left.
        self._parting: set[bytes] = set()
        self._lock = threading.Lock()
        self._channels: set[bytes] = set()
        self._link: Link | None = None
        #: A command could not be sent: the thread that reads is to connect anew.
        self._broken = False
        self._pid = os.getpid()
        self._heard = self._asked = 0.0
        self._waker = _Waker()

    def subscribe(self, channels: Collection[bytes]) -> bool:
        """Listen to these too; `receive` confirms each once it is heard.

        True when their values are being read too: whoever calls `receive` need not look.
        """
        with self._lock:
            fresh = [channel for channel in channels if channel not in self._channels]
            self._channels.update(fresh)
            return self._tell(self._beginning(fresh)) and self._reads

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        """Listen to these no more."""
        with self._lock:
            self._parting.update(self._channels.intersection(channels))
            self._channels.difference_update(channels)
            if not self._values or len(self._parting) >= _MANY:
                self._tell(self._end())

    def receive(self, timeout: float) -> _Heard:
        """Return (channel, payload) pairs; None as payload where listening to a channel has begun and no value is read.

        Waits up to `timeout` seconds for something; [] after that, or on `wake`. Raises an error of `failures` when
        the connection breaks; the next call connects again.
        """
        deadline = time.monotonic() + timeout
        self._forget_after_fork()
        try:
            while True:
                heard = self._read()
                left = deadline - time.monotonic()
                if heard or self._waker.take() or left <= 0:
                    return heard
                self._sleep(left)
        except BaseException:  # whatever broke off a read may have left half a reply
            self._drop()
            raise

    def wake(self) -> None:
        """End the `receive` of another thread, or the next one."""
        self._waker.wake()

    def close(self) -> None:
        """Listen to nothing any more."""
        with self._lock:
            self._channels.clear()
        self._drop()
        self._waker.close()

    # --- commands ------------------------------------------------------------------------------------------

    def _beginning(self, channels: list[bytes]) -> list[tuple[Any, ...]]:
        commands = self._end()
        for first in range(0, len(channels), _CHUNK):
            chunk = channels[first : first + _CHUNK]
            commands.append((self._p + "SUBSCRIBE", *chunk))
            if self._reads:
                commands.append(("MGET", *chunk))
                self._asked_for.append(chunk)
        return commands

    def _end(self) -> list[tuple[Any, ...]]:
        parting, self._parting = list(self._parting), set()
        return [(self._p + "UNSUBSCRIBE", *parting[first : first + _CHUNK]) for first in range(0, len(parting), _CHUNK)]

    def _tell(self, commands: list[tuple[Any, ...]]) -> bool:
        """Send commands about channels where there is a connection; a new one is told of all channels anyway."""
        if self._link is None or self._pid != os.getpid():
            return False
        try:
            self._link.send_all(commands)
        except OperationalError:
            self._broken = True
        except BaseException:
            self._broken = True
            raise
        return not self._broken

    # --- replies -------------------------------------------------------------------------------------------

    def _read(self) -> _Heard:
        """Take what has come; connects where there is no connection and something to listen to."""
        if self._broken:
            self._drop()
        link = self._link or self._connect()
        if link is None:
            return []
        heard: _Heard = []
        replies = link.take()
        if replies:
            self._heard = time.monotonic()
        for reply in replies:
            if self._reads and type(reply) is list:
                # What is told is no plain list here: this is what was stored.
                pairs = zip(self._asked_for.popleft(), reply, strict=True)
                heard += [(key, value) for key, value in pairs if value is not None and key in self._channels]
            elif isinstance(reply, list) and len(reply) >= 3 and reply[1] in self._channels:
                if reply[0] in _MESSAGES:
                    heard.append((reply[1], reply[-1]))
                elif reply[0] in _BEGINNINGS and not self._reads:
                    heard.append((reply[1], None))
        return heard

    def _connect(self) -> Link | None:
        if not self._channels:
            return None
        link = self._client.open()
        with self._lock:
            self._reads = self._values and link.speaks_resp3()
            self._asked_for.clear()
            self._parting.clear()
            self._link, self._pid = link, os.getpid()
            self._heard = time.monotonic()
            self._tell(self._beginning(list(self._channels)))
        return link

    def _sleep(self, left: float) -> None:
        """Wait for bytes, for `wake`, or until the server should give a sign of life."""
        descriptors = [self._waker.fileno()]
        if self._link is not None:
            descriptors.append(self._link.fileno())
            left = min(left, self._until_check())
        wait_readable(descriptors, max(0.0, left))

    def _until_check(self) -> float:
        """Seconds until silence has to be looked into: a server that is gone without a word is noticed by PING."""
        location, now = self._client.location, time.monotonic()
        if self._asked > self._heard:
            if now - self._asked > location.socket_timeout:
                raise failures.timed_out(location, location.socket_timeout, sent=False)
            return self._asked + location.socket_timeout - now
        due = self._heard + (location.health_check_interval or float("inf"))
        if now >= due and self._link is not None:
            with self._lock:
                self._link.send("PING")
            self._asked = now
            return location.socket_timeout
        return due - now

    def _forget_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._drop()
            self._waker.close()
            self._waker, self._pid = _Waker(), os.getpid()

    def _drop(self) -> None:
        with self._lock:
            link, self._link = self._link, None
            self._asked, self._broken, self._reads = 0.0, False, False
        if link is not None:
            link.close()


class _Waker:
    """A pair of sockets: one byte ends a wait."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._in.send(b"!")

    def take(self) -> bool:
        """Tell whether somebody has called `wake` since the last time."""
        try:
            return bool(self._out.recv(4096))
        except OSError:
            return False

    def fileno(self) -> int:
        return self._out.fileno()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._in.close()
        self._out.close()
