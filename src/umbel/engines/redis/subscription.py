"""Channels that one connection listens to. It is opened at first use and, after a failure or a fork, opened again with
all of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Collection

from umbel.core.errors import OperationalError
from umbel.engines.redis import failures
from umbel.engines.redis.connection import NOTHING, Client, Link
from umbel.engines.redis.wire import wait_readable

__all__ = ["Subscription"]

#: Channels in one SUBSCRIBE.
_CHUNK = 1000


class Subscription:
    """What `receive` returns comes from channels that were subscribed to. `receive` belongs to one thread at a time;
    everything else may be called from any thread and never fails: what is wrong is for `receive` to tell.
    """

    def __init__(self, client: Client, *, patterns: bool = False) -> None:
        self._client = client
        #: Whether channels are patterns of their names, as glob has them.
        self._p = "P" if patterns else ""
        self._lock = threading.Lock()
        self._channels: set[bytes] = set()
        self._link: Link | None = None
        #: A command could not be sent: the thread that reads is to connect anew.
        self._broken = False
        self._pid = os.getpid()
        self._heard = self._asked = 0.0
        self._waker = _Waker()

    def subscribe(self, channels: Collection[bytes]) -> None:
        """Listen to these too; `receive` confirms each once it is heard."""
        with self._lock:
            fresh = [channel for channel in channels if channel not in self._channels]
            self._channels.update(fresh)
            self._tell("SUBSCRIBE", fresh)

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        """Listen to these no more."""
        with self._lock:
            known = [channel for channel in channels if channel in self._channels]
            self._channels.difference_update(known)
            self._tell("UNSUBSCRIBE", known)

    def receive(self, timeout: float) -> list[tuple[bytes, bytes | None]]:
        """Return (channel, payload) pairs, None as payload where listening to a channel has begun.

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

    def _tell(self, command: str, channels: list[bytes]) -> None:
        """Send a command about channels where there is a connection; a new one is told of all channels anyway."""
        if self._link is None or self._pid != os.getpid():
            return
        command = self._p + command
        try:
            for first in range(0, len(channels), _CHUNK):
                self._link.send(command, *channels[first : first + _CHUNK])
        except OperationalError:
            self._broken = True
        except BaseException:
            self._broken = True
            raise

    def _read(self) -> list[tuple[bytes, bytes | None]]:
        """Take what has come; connects where there is no connection and something to listen to."""
        if self._broken:
            self._drop()
        link = self._link or self._connect()
        heard: list[tuple[bytes, bytes | None]] = []
        while link is not None:
            reply = link.receive(0.0)
            if reply is NOTHING:
                break
            self._heard = time.monotonic()
            if isinstance(reply, list) and len(reply) >= 3 and reply[1] in self._channels:
                if reply[0] in (b"message", b"pmessage"):
                    heard.append((reply[1], reply[-1]))
                elif reply[0] in (b"subscribe", b"psubscribe"):
                    heard.append((reply[1], None))
        return heard

    def _connect(self) -> Link | None:
        if not self._channels:
            return None
        link = self._client.open()
        with self._lock:
            self._link, self._pid = link, os.getpid()
            self._heard = time.monotonic()
            self._tell("SUBSCRIBE", list(self._channels))
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
            self._asked, self._broken = 0.0, False
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
