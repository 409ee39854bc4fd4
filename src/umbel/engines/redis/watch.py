"""Waiting for results: a subscription to the channel on which Redis tells each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence

from umbel.core.states import READY_STATES
from umbel.engines.redis.connection import Client
from umbel.engines.redis.states import state_of
from umbel.engines.redis.subscription import Subscription

__all__ = ["RESULT_KEY", "RedisWatch"]

#: What Celery calls the key, and the channel, of a result; the id follows.
RESULT_KEY = b"celery-task-meta-"
_CHUNK = 1000


class RedisWatch:
    """One wait for results: Watch of `umbel.engine.seam`."""

    def __init__(self, client: Client, told: dict[str, bytes]) -> None:
        self._client = client
        #: Terminal states that the channels have told, for the store's next `get`: they are what is stored.
        self._told = told
        self._prefix = client.result_prefix + RESULT_KEY
        self._subscription = Subscription(client, values=True)
        self._lock = threading.Lock()
        self._keys: set[bytes] = set()
        #: Listened to since now: what was stored before that is asked for, once.
        self._begun: set[bytes] = set()

    def add(self, ids: Collection[str]) -> bool:
        """Begin to watch the ids; a wait ends at once when one of them has a state already, which is read with that."""
        keys = [self._prefix + id_.encode() for id_ in ids]
        with self._lock:
            self._keys.update(keys)
        return self._subscription.subscribe(keys)

    def discard(self, ids: Collection[str]) -> None:
        """Stop watching the ids."""
        keys = [self._prefix + id_.encode() for id_ in ids]
        with self._lock:
            self._keys.difference_update(keys)
            self._begun.difference_update(keys)
        for id_ in ids:
            self._told.pop(id_, None)
        self._subscription.unsubscribe(keys)

    def wait(self, timeout: float) -> bool:
        """Wait until a watched result may have changed (True) or the time is over or `wake` was called (False)."""
        deadline = time.monotonic() + timeout
        while True:
            if self._is_stored_already():
                return True
            events = self._subscription.receive(max(0.0, deadline - time.monotonic()))
            with self._lock:
                watched = [event for event in events if event[0] in self._keys]
                self._begun.update(key for key, payload in watched if payload is None)
            if self._keep(watched):
                return True
            if not events:
                return False

    def _keep(self, events: Sequence[tuple[bytes, bytes | None]]) -> bool:
        """Note the terminal states among what was heard; True when a state was heard at all."""
        heard = False
        for key, payload in events:
            if payload is not None:
                heard = True
                if state_of(payload) in READY_STATES:
                    self._told[key[len(self._prefix) :].decode()] = payload
        return heard

    def _is_stored_already(self) -> bool:
        with self._lock:
            keys, self._begun = list(self._begun), set()
        try:
            return any(
                self._client.call("EXISTS", *keys[first : first + _CHUNK]) for first in range(0, len(keys), _CHUNK)
            )
        except BaseException:
            with self._lock:
                self._begun.update(self._keys.intersection(keys))
            raise

    def wake(self) -> None:
        """End a wait of another thread, or its next one."""
        self._subscription.wake()

    def close(self) -> None:
        """Watch nothing any more."""
        self._subscription.close()
