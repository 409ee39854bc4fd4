"""What sending a workflow does with broker and store: pieces, sizes, messages."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from umbel.app.canvas.bulk import build_many
from umbel.app.canvas.progress import Progress
from umbel.app.canvas.publishing import keep, keeps_plans, tried
from umbel.app.canvas.underway import LeftOpen, Underway
from umbel.app.parts import Place, join_message
from umbel.app.publish_signals import announce_sent
from umbel.core.errors import NotSupportedError
from umbel.core.flow.shape import Kind, Sig, is_stream, kind_of, tasks_of
from umbel.core.flow.starting import Call, Opened
from umbel.core.message import Message
from umbel.core.serialization import content_type_of

__all__ = ["CHUNK", "ChordNotSupported", "Sender", "check_chords", "has_chord"]

#: Messages in one step of the broker.
CHUNK = 1000
#: Bytes of messages that surely travel in one step where a step is not a transaction.
_SMALL = 256 * 1024


class ChordNotSupported(NotSupportedError, NotImplementedError):
    """A chord needs a place for the results of its header (Celery raises NotImplementedError)."""


class Sender:
    """One workflow on its way to broker and store."""

    def __init__(self, app: Any, progress: Progress) -> None:
        self.app = app
        self._progress = progress
        #: What is told how far it is.
        self._marks: list[Underway] = []

    def start(
        self,
        found: Iterable[Call | Opened],
        pieces: dict[str, bytes] | None = None,
        whole: Opened | None = None,
    ) -> None:
        """Send calls, all of which are built before anything is stored; first the pieces that go with them.

        `whole` is a header whose members are all of them.
        """
        calls: list[Call] = []
        headers: list[tuple[Opened, int]] = []
        for one in found:
            if isinstance(one, Opened):
                headers.append((one, len(calls)))
            else:
                calls.append(one)
        if whole is not None:
            headers.append((whole, len(calls)))
        built = build_many(self.app, calls)
        self.keep(pieces or {})
        self.deliver([message for message, _ in built], headers, calls[0].options if calls else None)
        for message, told in built:
            if told is not None:
                announce_sent(message, told)

    def deliver(
        self,
        messages: list[Message],
        opened: Sequence[tuple[Opened, int]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Store messages and the sizes of the headers that they open, these first: nothing of them can be missed.

        With each header comes how many of the messages it takes to have all its members. Should this process die on
        the way, those are ended that have not.
        """
        given = options or {}
        watched: AbstractContextManager[None] = nullcontext()
        if opened and not self._in_one_step(messages):
            headers = [(one.group, one.size, one.body, upto) for one, upto in opened]
            watched = self.underway(headers, messages[0].task, given, len(messages))
        with watched:
            self.expect({one.group: one.size for one, _ in opened})
            self._publish(messages, given)

    @contextmanager
    def underway(
        self,
        headers: Sequence[tuple[str, int | None, Sig, int | None]],
        task: str,
        options: Mapping[str, Any],
        total: int | None = None,
    ) -> Iterator[None]:
        """Have headers (id, size, body, `LeftOpen.upto`) ended by workers if this process dies or fails in this block.

        `task` and `options` are those of one of the `total` (None: nobody knows) messages that fill them.
        """
        app = self.app
        own = getattr(app.tasks.get(task), "serializer", None)
        content = content_type_of(options.get("serializer") or own or app.conf.task_serializer)
        root = options.get("root_id")
        left = [
            LeftOpen(group, join_message(app, Place(group, None, body, root, content, task)), size, upto)
            for group, size, body, upto in headers
        ]
        with Underway(app, headers[0][0], left, total, task) as mark:
            self._marks.append(mark)
            try:
                yield
            finally:
                self._marks.remove(mark)

    def _publish(self, messages: list[Message], given: Mapping[str, Any]) -> None:
        """Store messages: all in one step where a step is a transaction, elsewhere a thousand at a time."""
        step = max(1, len(messages)) if self.app.engine.caps.step is None else CHUNK
        for mark in self._marks:
            mark.begin()
        for first in range(0, len(messages), step):
            chunk = messages[first : first + step]
            self.app.client.send(chunk, retry=given.get("retry"), policy=given.get("retry_policy"))
            self._progress.add(len(chunk))
            for mark in self._marks:
                mark.add(len(chunk))

    def _in_one_step(self, messages: Sequence[Message]) -> bool:
        """Tell whether the messages are stored or not, all of them, whenever this process dies."""
        step = self.app.engine.caps.step
        if step is None or len(messages) <= 1:
            return True
        first = messages[0]
        return (
            len(messages) <= step
            and not first.exchange
            and all((one.queue, one.priority, one.exchange) == (first.queue, first.priority, "") for one in messages)
            and sum(len(one.head) + len(one.body) for one in messages) <= _SMALL
        )

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
