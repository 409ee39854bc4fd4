"""Calls that failed and are repeated: what such a call has stored, or has on its way, is not published once more.

What it may have stored is published again, and known to be.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.engines.rabbitmq.publisher import Blocked, Publisher

__all__ = ["Repeats"]

#: A failed call that is not repeated within so many seconds is forgotten.
_REMEMBERED = 120.0


class _Call:
    """What is known of one call that failed: the answers so far, and what may still answer the others."""

    def __init__(self, answers: Sequence[str], blocked: Blocked | None) -> None:
        self.answers = list(answers)
        self.blocked = blocked
        self.until = time.monotonic() + _REMEMBERED


class Repeats:
    """Remembers failed calls by the objects that were to be sent. Safe from any thread."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._lock = threading.Lock()
        #: id of the object → the object itself, its call, and its place in that.
        self._known: dict[int, tuple[Any, _Call, list[int]]] = {}

    def stored(self, keys: Sequence[Any]) -> set[int]:
        """Return the ids of those objects that need not be sent again; they are remembered until the call is `done`.

        Waits for what is on its way to a server that has blocked publishers; raises when it still does.
        """
        if not self._known:
            return set()
        self._forget_old()
        with self._lock:
            found = [(id(key), *self._known[id(key)][1:]) for key in keys if id(key) in self._known]
        for call in {id(call): call for _, call, _ in found}.values():
            blocked = call.blocked
            if blocked is not None:
                call.answers = self._publisher.wait_on(blocked)
                call.blocked = None
        return {key for key, call, places in found if all(not call.answers[place] for place in places)}

    def unsure(self, key: Any) -> bool:
        """Tell whether a call that failed may have stored this object already."""
        known = self._known.get(id(key)) if self._known else None
        return known is not None and any(known[1].answers[place] == "?" for place in known[2])

    def failed(self, keys: Sequence[Any], answers: Sequence[str], error: OperationalError) -> None:
        """Remember a call that failed; `keys` are the objects that its messages were made of, in order."""
        blocked = error if isinstance(error, Blocked) else None
        if len(answers) != len(keys):
            if blocked is not None:
                blocked.link.close()
            return
        call = _Call(answers, blocked)
        with self._lock:
            for place, key in enumerate(keys):
                known = self._known.get(id(key))
                if known is None or known[1] is not call:
                    known = self._known[id(key)] = (key, call, [])
                known[2].append(place)

    def done(self, keys: Sequence[Any]) -> None:
        """Forget what has been remembered of these objects."""
        if self._known:
            with self._lock:
                for key in keys:
                    self._known.pop(id(key), None)

    def _forget_old(self) -> None:
        now = time.monotonic()
        with self._lock:
            old = [(key, call) for key, (_, call, _) in self._known.items() if call.until < now]
            for key, _ in old:
                del self._known[key]
        _close([call for _, call in old])

    def close(self) -> None:
        """Forget everything, and close the connections that something is on its way on."""
        with self._lock:
            calls = [call for _, call, _ in self._known.values()]
            self._known.clear()
        _close(calls)


def _close(calls: Sequence[_Call]) -> None:
    for blocked in {call.blocked for call in calls if call.blocked is not None}:
        blocked.link.close()
