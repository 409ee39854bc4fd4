"""What sending a workflow does with broker and store: pieces, sizes, messages."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from umbel.app.canvas.bulk import build_many
from umbel.app.canvas.progress import Progress
from umbel.app.canvas.publishing import keep, keeps_plans, tried
from umbel.app.publish_signals import announce_sent
from umbel.core.errors import NotSupportedError
from umbel.core.flow.shape import Kind, Sig, is_stream, kind_of, tasks_of
from umbel.core.flow.starting import Call, Opened
from umbel.core.message import Message

__all__ = ["CHUNK", "ChordNotSupported", "Sender", "check_chords", "has_chord"]

#: Messages in one step of the broker.
CHUNK = 1000


class ChordNotSupported(NotSupportedError, NotImplementedError):
    """A chord needs a place for the results of its header (Celery raises NotImplementedError)."""


class Sender:
    """One workflow on its way to broker and store."""

    def __init__(self, app: Any, progress: Progress) -> None:
        self.app = app
        self._progress = progress

    def start(
        self,
        found: Iterable[Call | Opened],
        pieces: dict[str, bytes] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Send calls, all of which are built before anything is stored; first the pieces and sizes that go with them.

        A header is announced before its members are sent, so that nothing of it can be missed.
        """
        calls: list[Call] = []
        opened = dict(sizes or {})
        for one in found:
            if isinstance(one, Opened):
                opened[one.group] = one.size
            else:
                calls.append(one)
        built = build_many(self.app, calls)
        self.keep(pieces or {})
        self.expect(opened)
        self.publish([message for message, _ in built], calls[0].options if calls else None)
        for message, told in built:
            if told is not None:
                announce_sent(message, told)

    def publish(self, messages: list[Message], options: Mapping[str, Any] | None = None) -> None:
        """Store messages: all in one step where a step is a transaction, so that they are sent or not whenever this
        process dies; elsewhere a thousand at a time.
        """
        given = options or {}
        step = max(1, len(messages)) if self.app.engine.atomic is not None else CHUNK
        for first in range(0, len(messages), step):
            chunk = messages[first : first + step]
            self.app.client.send(chunk, retry=given.get("retry"), policy=given.get("retry_policy"))
            self._progress.add(len(chunk))

    def keep(self, pieces: dict[str, bytes]) -> None:
        """Put pieces into the store."""
        keep(self.app, pieces)

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Tell the store the sizes of headers. A header that is complete already goes on."""
        if not sizes:
            return
        store = self.app.store
        joined = tried(lambda: store.expect(sizes, time.time()))
        bodies = [one.body for one in joined if one.body is not None]
        if bodies:
            self.app.client.send(bodies)
            tried(lambda: store.confirm([one.group for one in joined]))


def check_chords(app: Any) -> None:
    """Raise where a chord could never complete."""
    if not keeps_plans(app):
        raise ChordNotSupported(
            "a chord needs a store that keeps the results of its header, and results that travel as messages (rpc://) "
            "or go nowhere (disabled) are not kept: set result_backend to a Redis or SQLite URL"
        )


def has_chord(sig: Sig) -> bool:
    """Tell whether there is a chord anywhere in a workflow; generators are not looked into."""
    waiting: list[Any] = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHORD:
            return True
        if kind in (Kind.CHAIN, Kind.GROUP) and not is_stream(tasks_of(one)):
            waiting.extend(tasks_of(one))
    return False
