"""Results as messages (`rpc://`): each goes to the queue of the client that asked for it, as Celery's `rpc` backend.

A state is one message to the anonymous exchange, with the reply queue as routing key, the task's id as correlation_id
and the stored JSON as its body. The client reads its queues into memory: whoever did not send a task cannot see its
result, and a result whose client is gone is dropped. Nothing else can be kept this way: no revocations, no groups.

Unlike Celery's, reply queues do not go with their last consumer, so that a cut connection costs no result; they are
deleted when the client closes or exits, or `x-expires` after it has died; beyond `x-max-length` the oldest results go.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

from umbel.core.errors import NotSupportedError, OperationalError
from umbel.core.message import Joined, Part, Record
from umbel.core.states import READY_STATES
from umbel.engines.rabbitmq.broker import RabbitBroker
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.inbox import Inbox
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.publisher import Outgoing
from umbel.engines.rabbitmq.sending import declare_reply
from umbel.engines.rabbitmq.tables import write_properties

__all__ = ["RpcStore"]

#: Seconds after which an unused reply queue is deleted, unless told otherwise (Celery: result_expires).
EXPIRES = 86_400.0
#: Results that nobody has asked for yet are kept up to so many, here and in a reply queue.
_MOST = 200_000
_ELSEWHERE = "set result_backend to a redis:// or sqlite:// URL"


class _Status(msgspec.Struct):
    status: str = "PENDING"


_read_status = msgspec.json.Decoder(_Status).decode


class RpcStore:
    """Store of `umbel.engine.seam` over the reply queues of one vhost."""

    def __init__(self, location: Location, broker: RabbitBroker) -> None:
        self._broker = broker
        self._location = location
        self._inbox: Inbox | None = None
        self._pid = os.getpid()
        #: The reply queues of this process, and those that are being read.
        self._queues: set[str] = set()
        self._consumed: set[str] = set()
        #: The arguments that they are declared with.
        self._arguments: dict[str, dict[str, Any]] = {}
        self._records: dict[str, Record] = {}
        self._arrived: set[str] = set()
        self._lock = threading.RLock()
        #: Held by the thread that reads.
        self._reading = threading.Lock()
        self._watches: set[RpcWatch] = set()

    # --- queues --------------------------------------------------------------------------------------------

    def expect_replies(self, name: str, expires: float = EXPIRES, most: int = _MOST) -> None:
        """Say that results of this process are to be sent to the queue `name`; it exists before the next publish.

        It is deleted when nobody has used it for `expires` seconds, and this call, when it is repeated, is a use; 0
        keeps it until this process closes. Of more than `most` unread results the oldest go.
        """
        with self._lock:
            self._check_process()
            if not self._queues:
                atexit.register(_at_exit, weakref.ref(self))
            self._queues.add(name)
            arguments: dict[str, Any] = {"x-max-length": most}
            if expires:
                arguments["x-expires"] = max(1, round(expires * 1000))
            self._arguments[name] = self._broker.reply_queues[name] = arguments

    def _check_process(self) -> None:
        """After a fork the queues are the parent's: what is in them is not for this process."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._lock, self._reading = threading.RLock(), threading.Lock()
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()
        for name in self._queues:
            self._broker.reply_queues.pop(name, None)
        for kept in (self._queues, self._consumed, self._records, self._arrived, self._watches):
            kept.clear()

    def _set_up(self, _link: Link) -> None:
        """Read every queue of this process on a fresh connection; called by whoever reads."""
        self._consumed.clear()

    def _consume(self, inbox: Inbox) -> None:
        link = inbox.open()
        for name in sorted(self._queues - self._consumed):
            # On this connection: the sender's may be as dead as the one before, and nobody has noticed yet.
            declare_reply(link, name, self._arguments[name])
            self._broker.reply_queues.pop(name, None)
            inbox.consume(link, name, no_ack=False)
            self._consumed.add(name)

    # --- results -------------------------------------------------------------------------------------------

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        """Send states to those who asked; what nobody asked for, and what nobody is there for any more, is dropped."""
        del now
        batch = [
            Outgoing("", record.reply_to, _properties(record), record.meta) for record in records if record.reply_to
        ]
        if batch:
            for answer in self._broker.publisher.send(batch):
                # An answer of 312 says that the client is gone with its queue.
                if answer and not answer.startswith("312"):
                    raise OperationalError(f"RabbitMQ did not store a result: {answer}")
        return []

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        """Return the newest states that have arrived here."""
        del now
        if ids:
            self.read(0.0)
        with self._lock:
            return {id_: self._records[id_] for id_ in ids if id_ in self._records}

    def read(self, timeout: float) -> None:
        """Take in what has arrived; wait up to `timeout` seconds. Does nothing while another thread reads."""
        with self._lock:
            self._check_process()
            if not self._queues:
                self._inbox_for_wait()
        if not self._reading.acquire(blocking=False):
            return
        try:
            inbox = self._inbox_for_wait()
            if self._queues:
                self._consume(inbox)
                letters = inbox.receive(timeout)
                for letter in letters:
                    self._take(str(letter.properties.get("correlation_id") or ""), letter.body)
                if letters and inbox.link is not None:
                    with inbox.asking(inbox.link, "acknowledge results") as channel:
                        channel.basic_ack(letters[-1].number, multiple=True)
        finally:
            self._reading.release()

    def _inbox_for_wait(self) -> Inbox:
        with self._lock:
            if self._inbox is None:
                self._inbox = Inbox(self._location, "results", self._set_up)
            return self._inbox

    def _take(self, id_: str, meta: bytes) -> None:
        try:
            state = _read_status(meta).status
        except (msgspec.MsgspecError, RecursionError):
            # Written with another serializer: whoever reads the value finds out; it is looked at when it is asked for.
            state = "SUCCESS"
        with self._lock:
            known = self._records.get(id_)
            if known is not None and known.state in READY_STATES:
                return
            self._records.pop(id_, None)
            self._records[id_] = Record(id_, state, meta)
            for watch in self._watches:
                watch.arrived(id_)
            if len(self._records) > _MOST:
                del self._records[next(iter(self._records))]

    def watch(self) -> RpcWatch:
        """Open a watch for this process."""
        with self._lock:
            self._check_process()
            watch = RpcWatch(self)
            self._watches.add(watch)
            return watch

    def unwatch(self, watch: RpcWatch) -> None:
        """Close a watch."""
        with self._lock:
            self._watches.discard(watch)

    def has(self, id_: str) -> bool:
        """Tell whether a state of the task has arrived."""
        return id_ in self._records

    def wake(self) -> None:
        """End the wait of the thread that reads."""
        inbox = self._inbox
        if inbox is not None:
            inbox.wake()

    def forget(self, ids: Sequence[str]) -> None:
        """Drop states that have arrived here."""
        with self._lock:
            for id_ in ids:
                self._records.pop(id_, None)

    def expire(self, now: float, limit: int = 1000) -> int:
        """Return 0: nothing is kept here beyond its client."""
        del now, limit
        return 0

    # --- what messages cannot do -----------------------------------------------------------------------------

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        """Not possible: there is no place where workers that start later would find it."""
        del records, now
        raise NotSupportedError(f"rpc:// keeps no revocations, which must outlive every worker: {_ELSEWHERE}")

    def revoked(self, ids: Sequence[str]) -> set[str]:
        """Return nothing: no task can have been revoked."""
        del ids
        return set()

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        """Not possible (Celery says the same of chords)."""
        del parts, now, anew
        _no_groups()

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Not possible."""
        del sizes, now
        _no_groups()

    def confirm(self, groups: Collection[str]) -> None:
        """Not possible."""
        del groups
        _no_groups()

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        """Return nothing: there are no groups."""
        del before, limit
        return []

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Not possible."""
        del groups
        _no_groups()

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Not possible."""
        del groups, expires
        _no_groups()

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        """Not possible."""
        del group, by, now, key
        _no_groups()

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        """Not possible: messages carry their workflow themselves (`caps.plans`)."""
        del pieces, now, expires
        _keeps_nothing("pieces of workflows")

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        """Not possible."""
        del keys, now, expires
        _keeps_nothing("pieces of workflows")

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        """Not possible: it would outlive its client."""
        del group, data, now, expires
        _keeps_nothing("groups of results")

    def saved_group(self, group: str, now: float) -> bytes | None:
        """Return None: nothing can have been saved."""
        del group, now
        return None

    def delete_group(self, group: str) -> None:
        """Do nothing: nothing can have been saved."""
        del group

    def leave(self) -> None:
        """Delete the reply queues of this process, which exits, over a connection that is there."""
        if self._pid != os.getpid():
            return
        declared = self._queues - self._broker.reply_queues.keys()
        self._queues.clear()
        if declared:
            with suppress(OperationalError):
                link, confirms = self._broker.pool.take()
                _delete(link, declared)
                self._broker.pool.give(link, confirms)

    def close(self) -> None:
        """Stop reading and delete the reply queues of this process."""
        with self._lock:
            self._check_process()
            queues = set(self._queues)
            inbox, self._inbox = self._inbox, None
            self._queues.clear()
            self._consumed.clear()
        declared = queues - self._broker.reply_queues.keys()
        for name in queues:
            self._broker.reply_queues.pop(name, None)
        # The engine's other connections may be closed by now.
        link = inbox.link if inbox is not None and inbox.usable else None
        if declared:
            with suppress(OperationalError):
                if link is None:
                    link = Link(self._location, "results")
                    link.open()
                _delete(link, declared)
        if link is not None:
            link.close()
        if inbox is not None:
            inbox.close()


class RpcWatch:
    """A wait for results that arrive as messages."""

    def __init__(self, store: RpcStore) -> None:
        self._store = store
        self._ids: set[str] = set()
        self._fresh = threading.Event()
        self._woken = False

    def add(self, ids: Collection[str]) -> None:
        """Begin to watch the ids."""
        self._ids.update(ids)
        if any(self._store.has(id_) for id_ in ids):
            self._fresh.set()

    def discard(self, ids: Collection[str]) -> None:
        """Stop watching the ids."""
        self._ids.difference_update(ids)

    def arrived(self, id_: str) -> None:
        """A state has come in (called by the store)."""
        if id_ in self._ids:
            self._fresh.set()

    def wait(self, timeout: float) -> bool:
        """Wait until a watched result may have changed (True) or the time is over (False)."""
        if not self._fresh.is_set() and not self._woken:
            self._store.read(max(timeout, 0.0))
        self._woken = False
        fresh = self._fresh.is_set()
        self._fresh.clear()
        return fresh

    def wake(self) -> None:
        """End a wait of another thread, or the next one."""
        self._woken = True
        self._store.wake()

    def close(self) -> None:
        """Let go of the watch."""
        self._store.unwatch(self)


def _at_exit(store: weakref.ref[RpcStore]) -> None:
    known = store()
    if known is not None:
        known.leave()


def _delete(link: Link, queues: Collection[str]) -> None:
    for name in queues:
        with link.questions(f"delete the queue {name!r}") as channel:
            channel.queue_delete(name)


def _no_groups() -> NoReturn:
    raise NotSupportedError(f"results as messages (rpc://) cannot join the tasks of a chord: {_ELSEWHERE}")


def _keeps_nothing(what: str) -> NoReturn:
    raise NotSupportedError(f"results as messages (rpc://) keep no {what}: {_ELSEWHERE}")


def _properties(record: Record) -> bytes:
    content_type, encoding = _kind(record.meta[:1])
    properties: dict[str, Any] = {"correlation_id": record.id, "delivery_mode": 2}
    return write_properties({}, properties, content_type, encoding)


def _kind(first: bytes) -> tuple[str, str]:
    """Return content type and encoding of a stored meta, which is a mapping in one of the serializers."""
    if first in (b"{", b"\0", b""):
        return "application/json", "utf-8"
    if first == b"\x80":
        return "application/x-python-serialize", "binary"
    return ("application/x-msgpack", "binary") if first >= b"\x81" else ("application/x-yaml", "utf-8")
