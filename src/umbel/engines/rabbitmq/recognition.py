"""Recognising messages that come again after their connection was cut: those that still run here, and finished ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

__all__ = ["Key", "Recognition"]

#: What a message is recognised by: id, generation, queue.
Key = tuple[str, int, str]
#: For how long messages that come again are recognised after a cut (seconds).
_RECOGNISE = 60.0
#: Acknowledgements written so shortly before a cut may have been lost with it (seconds): where nothing arrives at
#: RabbitMQ any more it cuts the connection after two heartbeats, and until then everything looks well from here.
_DOUBTFUL = 60.0


class Recognition:
    """What one consumer remembers of the connections that it has lost."""

    def __init__(self) -> None:
        self._running: dict[Key, Any] = {}
        self._finished: dict[Key, float] = {}
        self._acknowledged: deque[tuple[float, Key]] = deque(maxlen=5000)

    def acknowledged(self, keys: Iterable[Key]) -> None:
        """Note what has just been acknowledged for good."""
        now = time.monotonic()
        self._acknowledged.extend([(now, key) for key in keys])

    def unanswered(self, key: Key) -> None:
        """Note what has finished when it could not be acknowledged any more."""
        self._finished[key] = time.monotonic() + _RECOGNISE
        self._running.pop(key, None)

    def cut(self, running: dict[Key, Any]) -> None:
        """The connection is gone: `running` (with their tags) may come again, and what was acknowledged last too."""
        now = time.monotonic()
        self._running = running
        self._finished = {key: until for key, until in self._finished.items() if until > now}
        self._finished |= {key: now + _RECOGNISE for at, key in self._acknowledged if now - at < _DOUBTFUL}
        self._acknowledged.clear()

    def still_running(self, key: Key) -> Any:
        """Return the tag of the delivery that this message is again, once; None when it is not."""
        return self._running.pop(key, None)

    def has_finished(self, key: Key) -> bool:
        """Tell, once, whether this message had finished before it came again."""
        return self._finished.pop(key, 0.0) > time.monotonic()
