"""The bus of a Redis: what is sent to a topic is published on the channel `umbel.bus.<topic>`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from umbel.engines.redis import failures
from umbel.engines.redis.connection import Client
from umbel.engines.redis.subscription import Subscription

__all__ = ["RedisBus"]


class RedisBus:
    """Fan-out of control messages: Bus of `umbel.engine.seam`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._prefix = client.prefix + b"umbel.bus."

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        """Send payloads to every listener of `topic`."""
        del now
        channel = self._prefix + topic.encode()
        for reply in self._client.pipeline([("PUBLISH", channel, payload) for payload in payloads]):
            if isinstance(reply, Exception):
                raise reply

    def listen(self, topics: Sequence[str]) -> RedisListener:
        """Open a listener that hears what is sent from now on."""
        return RedisListener(self._client, self._prefix, topics)


class RedisListener:
    """One ear on the bus. What is sent while its connection is broken is not heard."""

    def __init__(self, client: Client, prefix: bytes, topics: Sequence[str]) -> None:
        self._topics = {prefix + topic.encode(): topic for topic in topics}
        self._subscription = Subscription(client)
        self._early: list[tuple[str, bytes]] = []
        try:
            self._begin(client)
        except BaseException:
            self._subscription.close()
            raise

    def _begin(self, client: Client) -> None:
        """Wait until Redis has confirmed every channel."""
        self._subscription.subscribe(list(self._topics))
        missing = set(self._topics)
        seconds = client.location.socket_timeout
        deadline = time.monotonic() + seconds
        while missing:
            left = deadline - time.monotonic()
            if left <= 0:
                raise failures.timed_out(client.location, seconds, sent=False)
            for channel, payload in self._subscription.receive(left):
                missing.discard(channel)
                if payload is not None:
                    self._early.append((self._topics[channel], payload))

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        """Return (topic, payload) pairs sent since the last call; wait up to `timeout` seconds for one."""
        heard, self._early = self._early, []
        deadline = time.monotonic() + timeout
        while True:
            events = self._subscription.receive(0.0 if heard else max(0.0, deadline - time.monotonic()))
            heard += [(self._topics[channel], payload) for channel, payload in events if payload is not None]
            # What only confirms a channel after a new connection is nothing to return for.
            if heard or not events:
                return heard

    def wake(self) -> None:
        """End a `receive` of another thread, or its next one."""
        self._subscription.wake()

    def close(self) -> None:
        """Stop listening."""
        self._subscription.close()
