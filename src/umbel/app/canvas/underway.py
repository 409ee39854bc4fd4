"""A workflow that is being sent in several steps, as the store knows it: its producer may die on the way.

Until all is sent a group of its own, the *mark*, is joined anew every few seconds, complete from a time that is still
to come. Who dies does not say so again: whoever looks for groups that nobody goes on with finds the mark and publishes
the message that it brought, `umbel.unsent`. That ends the chords that were left open (`umbel.app.unsent`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from umbel.app.canvas.publishing import tried
from umbel.app.flow_queue import derived_id, flow_message
from umbel.core.errors import OperationalError
from umbel.core.message import Message, Part
from umbel.core.safe_repr import safe_repr

__all__ = ["LeftOpen", "Mark", "Underway", "read_mark"]

#: How often a producer says that it is alive, and how long after that it is believed (seconds); workers add the time
#: that they leave to whoever was told that a group is complete.
_EVERY, _BELIEVED = 5.0, 10.0
#: A mark up to this size (bytes) is written after each step, a larger one only to say that the producer is alive.
_SMALL = 64 * 1024


class LeftOpen(msgspec.Struct, array_like=True, gc=False):
    """A header whose members are being sent, and how it is ended if they never come."""

    group: str
    #: What goes on once the header is complete.
    join: Message
    #: How many members it has; None where their producer does not know yet, 0 where it is about `by` members more.
    size: int | None = None
    #: How many messages are stored when all of its members are; None where that is not known.
    upto: int | None = None
    #: How many places are let into it for those that were not sent, and the key that `Store.grow` knows them by.
    by: int = 1
    key: str = "umbel.unsent"


class Mark(msgspec.Struct, array_like=True, gc=False):
    """What the store keeps of a workflow that is being sent."""

    groups: list[LeftOpen]
    #: When it was written (epoch seconds): a producer that is alive writes it again.
    at: float
    sent: int = 0
    total: int | None = None
    #: The error that ended the sending, where the producer could still tell.
    error: str = ""


_pack = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Mark).decode


def read_mark(data: bytes) -> Mark:
    """Return the mark that was stored."""
    return _read(data)


class Underway:
    """`with Underway(app, name, groups) as mark: … mark.add(1000) …`: the groups are being filled.

    `known` is a task that the workers know which are to end them, should several apps share the queue. On an error
    what was begun is given up: workers end the groups. Raises OperationalError where the store is away.
    """

    def __init__(
        self, app: Any, name: str, groups: Sequence[LeftOpen], total: int | None = None, known: str = ""
    ) -> None:
        self._app = app
        self._known = known if known in app.tasks else ""
        self._name = f"{name}.sending"
        self._mark = Mark(list(groups), 0.0, 0, total)
        self._begun = False
        self._large = False
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        tried(self._write)
        threading.Thread(target=self._stay_alive, name="umbel-sending", daemon=True).start()
        return self

    def begin(self) -> None:
        """From now on something may have been sent."""
        self._begun = True

    def add(self, count: int) -> None:
        """So many messages more are stored."""
        mark = self._mark
        mark.sent += count
        if not self._large and mark.sent != mark.total:
            tried(self._write)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._over.set()
        if error is None:
            tried(self._forget)
            return
        self._mark.error = safe_repr(error)
        try:
            self._write(0.0) if self._begun else self._forget()
        except OperationalError:
            # The mark tells it once it is not written any more.
            return

    def _stay_alive(self) -> None:
        while not self._over.wait(_EVERY):
            with self._lock:
                if self._over.is_set():
                    return
                try:
                    self._write()
                except OperationalError:
                    continue

    def _write(self, believed: float = _BELIEVED) -> None:
        now = time.time()
        self._mark.at = now
        data = _pack(self._mark)
        self._large = len(data) > _SMALL
        task_id = derived_id(self._name, 0, f"unsent/{now}")
        watch = flow_message(self._app, "umbel.unsent", (self._name,), task_id=task_id, known=self._known)
        # A producer that gives up says so: it is not waited for.
        due = now + believed if believed else 0.0
        self._app.store.join([Part(self._name, 0, data, 1, watch, "umbel.unsent")], due, True)

    def _forget(self) -> None:
        self._app.store.forget_groups([self._name])
