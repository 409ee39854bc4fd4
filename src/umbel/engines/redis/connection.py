"""One process' way to one Redis: a connection per thread, new ones after a fork; none that has failed is used again."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis

from umbel.engines.redis import failures
from umbel.engines.redis.dialing import credentials, dial
from umbel.engines.redis.location import Location
from umbel.engines.redis.wire import NOTHING, ReplyError, Wire, pack

__all__ = ["NOTHING", "Client", "Link", "Script"]

_HELLO = pack(("HELLO", "3"))
#: Commands that change nothing, which may be sent twice.
_READS = frozenset(
    ("EXISTS", "GET", "HGETALL", "HMGET", "LINDEX", "LRANGE", "MGET", "SMEMBERS", "ZRANGE", "ZRANGEBYSCORE")
)


class Script:
    """A Lua script; Redis is sent its hash, and the source once it says that it does not know that."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the command that runs it, for a pipeline; Redis may answer NOSCRIPT."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


class _Local(threading.local):
    wire: Wire | None = None
    login: Any = None
    looked: float = 0.0


class Client:
    """Commands to one Redis, from any thread. Nothing that may have been carried out is sent twice.

    Every call raises an error of `umbel.engines.redis.failures` when it cannot be done within its deadlines.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        #: Stands in front of every key and channel of the broker and the bus.
        self.prefix = location.prefix
        #: The same for results.
        self.result_prefix = location.result_prefix
        self._local = _Local()
        self._wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        #: When a call last failed: connections that have not been used since may be as dead.
        self.doubted = 0.0
        #: The first connection sees whether umbel can use this server.
        self._looked = False

    def call(self, *args: Any) -> Any:
        """Carry out one command in one round trip and return the reply: bytes, int, list or None.

        One that changes nothing is sent again where the connection turns out to have ended: a restarted server is met.
        """
        request = pack(args)
        try:
            return self._exchange(request)
        except failures.Unreachable as error:
            if not error.ended or args[0] not in _READS:
                raise
        return self._exchange(request)

    def _exchange(self, request: bytes) -> Any:
        wire = self._wire()
        try:
            reply = wire.exchange(request)
        except BaseException:
            self._give_up(wire)
            raise
        if type(reply) is ReplyError:
            raise self._refused(reply, wire)
        return reply

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands at once and return their replies; errors of Redis stand in place as exceptions."""
        return self.begin(commands)() if commands else []

    def begin(self, commands: Sequence[Sequence[Any]]) -> Callable[[], list[Any]]:
        """Send commands; what is returned waits for their replies. Until then this thread sends nothing else here."""
        wire = self._wire()
        try:
            wire.send(b"".join([pack(command) for command in commands]))
        except BaseException:
            self._give_up(wire)
            raise
        return lambda: self._replies(wire, len(commands))

    def stream(self, commands: Iterable[bytes]) -> list[Any]:
        """The same for packed commands, each sent as soon as it is there, while the next is made."""
        wire = self._wire()
        count = 0
        try:
            for command in commands:
                wire.send(command)
                count += 1
        except BaseException:
            self._give_up(wire)
            raise
        return self._replies(wire, count)

    def _replies(self, wire: Wire, count: int) -> list[Any]:
        try:
            deadline = time.monotonic() + wire.seconds
            replies = [wire.read(deadline) for _ in range(count)]
        except BaseException:
            self._give_up(wire)
            raise
        wire.used = time.monotonic()
        return [self._refused(reply, wire) if type(reply) is ReplyError else reply for reply in replies]

    def script(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run a script in one round trip; a server that does not know it yet is sent its source."""
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except failures.RedisFailure as error:
            if error.code != "NOSCRIPT":
                raise
        return self.call("EVAL", script.source, len(keys), *keys, *args)

    def open(self) -> Link:
        """Open a connection of its own, for commands that block and for subscriptions."""
        return Link(dial(self.location))

    def close(self) -> None:
        """Close the connections of this process; they are opened again when they are needed."""
        with self._lock:
            wires, self._wires = list(self._wires), weakref.WeakSet()
            self._local = _Local()
        for wire in wires:
            wire.close()

    def _wire(self) -> Wire:
        """Return the connection of this thread, connected."""
        local = self._local
        wire = local.wire
        if wire is not None and wire.pid == os.getpid():
            doubtful = wire.used < self.doubted or wire.is_stale(self.location.health_check_interval)
            if not doubtful and not self._outdated(local):
                return wire
            self._drop(wire)
        wire = dial(self.location, look=not self._looked)
        self._looked = True
        if self.location.credential_provider is not None:
            local.login, local.looked = credentials(self.location), time.monotonic()
        with self._lock:
            if self._pid != wire.pid:
                # What the parent has open stays open for the parent.
                self._wires, self._pid = weakref.WeakSet(), wire.pid
            self._wires.add(wire)
        local.wire = wire
        return wire

    def _outdated(self, local: _Local) -> bool:
        """True when the credential provider has new credentials, looked up every `reauth_check_interval` seconds."""
        if self.location.credential_provider is None:
            return False
        now = time.monotonic()
        if now - local.looked < self.location.reauth_check_interval:
            return False
        local.looked = now
        return bool(credentials(self.location) != local.login)

    def _give_up(self, wire: Wire) -> None:
        """Drop a connection that has failed; no other thread finds out for itself, each after a time-out of its own."""
        self.doubted = time.monotonic()
        self._drop(wire)

    def _drop(self, wire: Wire) -> None:
        wire.close()
        if self._local.wire is wire:
            self._local.wire = None

    def _refused(self, reply: Exception, wire: Wire) -> failures.RedisFailure:
        error = failures.of_reply(str(reply), self.location)
        if error.code in ("READONLY", "NOAUTH", "MASTERDOWN"):
            # The master has become a replica, or the password has changed: the next call looks anew.
            self._drop(wire)
        return error


class Link:
    """A connection of its own for blocking commands and subscriptions. Not thread-safe, and not to be used after a
    fork; after an error it is to be closed.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        reply = wire.exchange(pack(("CLIENT", "ID")))
        if type(reply) is ReplyError:
            wire.close()
            raise failures.of_reply(str(reply), wire.location)
        #: What CLIENT UNBLOCK knows it by.
        self.id = int(reply)

    def send(self, *args: Any) -> None:
        """Send a command; its replies are read with `receive`."""
        self._wire.send(pack(args))

    def send_all(self, commands: Sequence[Sequence[Any]]) -> None:
        """Send commands together."""
        if commands:
            self._wire.send(b"".join([pack(command) for command in commands]))

    def speaks_resp3(self) -> bool:
        """Change to RESP3, where what is told cannot be taken for a reply; False if the server does not let us."""
        return hasattr(hiredis, "PushNotification") and type(self._wire.exchange(_HELLO)) is not ReplyError

    def take(self) -> list[Any]:
        """Return the replies that have come; an error of Redis is raised."""
        replies = self._wire.take()
        for reply in replies:
            if type(reply) is ReplyError:
                raise failures.of_reply(str(reply), self._wire.location)
        return replies

    def receive(self, timeout: float) -> Any:
        """Return a reply that has come or comes within `timeout` seconds, else NOTHING; errors of Redis are raised."""
        reply = self._wire.receive(timeout)
        if type(reply) is ReplyError:
            raise failures.of_reply(str(reply), self._wire.location)
        return reply

    def fileno(self) -> int:
        """Return the descriptor to wait on; read with `receive(0)` until NOTHING before waiting."""
        return int(self._wire.socket.fileno())

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()
