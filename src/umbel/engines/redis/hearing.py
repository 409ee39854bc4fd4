"""What Celery's producers send through fanout exchanges: kombu publishes that on a channel, where nothing is kept.

A process that consumes a queue which is bound to such an exchange listens in a thread of its own, however busy it is,
and puts what it hears into the queue, once. What umbel's own producers send is in the queue already.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Mapping, Sequence

import msgspec

from umbel.core.errors import OperationalError
from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import HEAR
from umbel.engines.redis.subscription import Subscription

__all__ = ["Hearing"]

#: For how long what was heard is known again (seconds): every listener hears it at the same moment.
_KNOWN = 300
#: Pause after the connection has failed (seconds).
_PAUSE = 1.0
_SPECIAL = re.compile(rb"([\\*?\[\]])")


class _Properties(msgspec.Struct, gc=False):
    priority: int | None = None
    umbel: msgspec.Raw | None = None


class _Envelope(msgspec.Struct, gc=False):
    properties: _Properties


_read = msgspec.json.Decoder(_Envelope).decode


class Hearing:
    """The ear of one broker; opened when a queue is consumed that is bound to a fanout exchange."""

    def __init__(self, client: Client, keys: Keys, bound: Mapping[str, Sequence[str]]) -> None:
        self._client = client
        self._keys = keys
        #: Queue → the fanout exchanges it is bound to, as declared in this process.
        self._bound = bound
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._queues: tuple[str, ...] = ()
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        #: Pattern of channels → the exchange.
        self._exchanges: dict[bytes, str] = {}

    def attend(self, queues: tuple[str, ...]) -> None:
        """Listen for these queues from now on, too."""
        if not self._bound or (self._pid == os.getpid() and all(name in self._queues for name in queues)):
            return
        with self._lock:
            if self._pid != os.getpid():
                # Thread and connection are the parent's.
                self._queues, self._subscription, self._thread, self._exchanges = (), None, None, {}
                self._pid, self._ended = os.getpid(), threading.Event()
            self._queues += tuple(name for name in queues if name not in self._queues)
            fresh = {
                pattern: exchange
                for name in queues
                for exchange in self._bound.get(name, ())
                for pattern in self._patterns(exchange)
                if pattern not in self._exchanges
            }
            if fresh:
                self._exchanges |= fresh
                self._listen(list(fresh))

    def leave(self, queues: Collection[str]) -> None:
        """Listen for these queues no more; call it after they are bound no more."""
        with self._lock:
            self._queues = tuple(name for name in self._queues if name not in queues)
            wanted = {exchange for name in self._queues for exchange in self._bound.get(name, ())}
            gone = [pattern for pattern, exchange in self._exchanges.items() if exchange not in wanted]
            if self._subscription is not None and self._pid == os.getpid():
                self._subscription.unsubscribe(gone)
            self._exchanges = {pattern: name for pattern, name in self._exchanges.items() if name in wanted}

    def _patterns(self, exchange: str) -> list[bytes]:
        channel = _SPECIAL.sub(rb"\\\1", self._keys.channel(exchange))
        return [channel, channel + b"/*"] if self._keys.fanout_patterns else [channel]

    def _listen(self, patterns: list[bytes]) -> None:
        if self._subscription is None:
            self._subscription = Subscription(self._client, patterns=True)
        self._subscription.subscribe(patterns)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="umbel-redis-fanout", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        subscription, ended = self._subscription, self._ended
        assert subscription is not None
        while not ended.is_set():
            try:
                for pattern, payload in subscription.receive(30.0):
                    exchange = self._exchanges.get(pattern)
                    if payload is not None and exchange is not None:
                        self._take_in(exchange, payload)
            except OperationalError:
                # Whoever leases finds the same out and tells it.
                ended.wait(_PAUSE)

    def _take_in(self, exchange: str, payload: bytes) -> None:
        """Store what was heard; nothing for what an umbel has sent, or for what is no message."""
        try:
            properties = _read(payload).properties
        except (msgspec.MsgspecError, RecursionError):
            return
        if properties.umbel is not None:
            return
        args: list[bytes | str | int] = [_KNOWN, exchange, payload]
        for queue in self._queues:
            if exchange in self._bound.get(queue, ()):
                args += (queue, self._keys.list_of(queue, properties.priority or 0))
        if len(args) > 3:
            self._client.script(HEAR, [self._keys.prefix], args)

    def close(self) -> None:
        """Listen no more."""
        with self._lock:
            thread, subscription = self._thread, self._subscription
            self._thread, self._subscription, self._queues, self._exchanges = None, None, (), {}
            self._ended.set()
            self._ended = threading.Event()
        if subscription is not None and self._pid == os.getpid():
            subscription.wake()
            if thread is not None:
                thread.join(2.0)
            subscription.close()
