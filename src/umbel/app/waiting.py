"""Waiting for results: one waiter per store and process, for any number of threads and event loops at once.

A wake-up of the store's watch is only a hint; the truth is one `Store.get` of everything that is waited for,
repeated with growing pauses even when no hint comes. A single waiting thread watches by itself, so that nothing
is handed between threads; event loops are served by a thread that starts with the first of them. A store that
stays unreachable ends every wait with its error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from umbel.core import states
from umbel.core.errors import OperationalError
from umbel.core.message import Record
from umbel.engine.seam import Store, Watch

__all__ = ["Ticket", "Waiter", "close_waiter", "waiter_of"]

logger = logging.getLogger("celery.result")

#: Pauses between two looks without a hint, in seconds.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
#: How long a failing store is asked again before the waiters are told, in seconds.
PATIENCE = 10.0
#: Ids in one `Store.get`.
CHUNK = 1000
#: With many ids waiting, the part of the time that looking at all of them may take is bounded by this.
_REST_PER_ID = 10e-6
_LINGER = 5.0


class Ticket:
    """One wait for a set of ids. `records` fills up; `done` when all are there or `error` says why not."""

    __slots__ = ("done", "error", "notify", "on_record", "pending", "records")

    def __init__(
        self,
        ids: Iterable[str],
        notify: Callable[[], None],
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.pending = set(ids)
        self.records: dict[str, Record] = {}
        self.error: BaseException | None = None
        self.done = not self.pending
        #: Called from any thread when the ticket is done.
        self.notify = notify
        #: Called with every state that is seen, unready ones included.
        self.on_record = on_record


class Waiter:
    """Serves every wait of this process on one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._tickets: dict[str, list[Ticket]] = {}
        #: Ids that the watch does not know yet, and those that it need not know any more.
        self._fresh: set[str] = set()
        self._stale: set[str] = set()
        #: Threads that wait while another one watches; the first takes over when that one leaves.
        self._followers: dict[Ticket, threading.Event] = {}
        #: Whether somebody watches now, and whether that is the thread.
        self._led = False
        self._thread: threading.Thread | None = None
        self._work = threading.Event()

    # --- the three ways to wait -----------------------------------------------------------------------------

    def wait(
        self,
        ids: Iterable[str],
        timeout: float | None = None,
        *,
        on_record: Callable[[Record], None] | None = None,
    ) -> dict[str, Record]:
        """Wait in this thread until all ids are ready or `timeout` seconds are over; return what is ready.

        Raises OperationalError when the store stays unreachable.
        """
        event = threading.Event()
        ticket = Ticket(ids, event.set, on_record)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._add(ticket)
            while not ticket.done:
                if self._take_lead(ticket, event):
                    try:
                        self._drive(lambda: ticket.done, deadline)
                    finally:
                        self.discard(ticket)
                        self._hand_over()
                    break
                event.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
                if deadline is not None and time.monotonic() >= deadline and not ticket.done:
                    # Whoever watches may not have looked since this wait began.
                    self._look_for(ticket)
                    break
                event.clear()
        finally:
            self.discard(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.records

    async def wait_async(self, ids: Iterable[str], timeout: float | None = None) -> dict[str, Record]:  # noqa: ASYNC109
        """The same for a coroutine, on whatever event loop it runs."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def notify() -> None:
            # A loop that was closed meanwhile has nobody who waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

        ticket = Ticket(ids, notify)
        try:
            self._add(ticket)
            if not ticket.done:
                self._serve()
                await asyncio.wait((future,), timeout=timeout)
        finally:
            self.discard(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.records

    def call(self, ids: Iterable[str], notify: Callable[[Ticket], None]) -> Ticket:
        """Call `notify(ticket)` from the waiter's thread when the ids are ready, unless it is discarded."""
        ticket = Ticket(ids, lambda: notify(ticket))
        self._add(ticket)
        self._serve()
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Forget a ticket; harmless when it is done or was discarded before."""
        with self._lock:
            self._followers.pop(ticket, None)
            for task_id in ticket.pending:
                waiting = self._tickets.get(task_id)
                if waiting is not None and ticket in waiting:
                    waiting.remove(ticket)
                    if not waiting:
                        del self._tickets[task_id]
                        self._stale.add(task_id)
            ticket.pending = set()

    def pending(self) -> int:
        """Count the ids that somebody waits for."""
        with self._lock:
            return len(self._tickets)

    # --- who watches ----------------------------------------------------------------------------------------

    def _add(self, ticket: Ticket) -> None:
        with self._lock:
            for task_id in ticket.pending:
                self._tickets.setdefault(task_id, []).append(ticket)
            self._fresh |= ticket.pending
            watch = self._watch if self._led else None
        if watch is not None:
            watch.wake()

    def _take_lead(self, ticket: Ticket, event: threading.Event) -> bool:
        with self._lock:
            if self._led:
                self._followers[ticket] = event
                return False
            self._led = True
            self._followers.pop(ticket, None)
            return True

    def _hand_over(self) -> None:
        with self._lock:
            self._led = False
            heir = next(iter(self._followers.values()), None)
            waiting = bool(self._tickets)
        if heir is not None:
            heir.set()
        elif waiting:
            self._serve()

    def _serve(self) -> None:
        """See to it that the thread watches for waits that have no thread of their own."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._live, name="umbel-results", daemon=True)
                self._thread.start()
        self._work.set()

    def _live(self) -> None:
        while True:
            if not self._work.wait(_LINGER):
                with self._lock:
                    if not self._work.is_set():
                        self._thread = None
                        return
            self._work.clear()
            with self._lock:
                if self._led or not self._tickets:
                    continue  # whoever watches hands over when it leaves
                self._led = True
            try:
                self._drive(lambda: not self._tickets, None)
            finally:
                self._hand_over()

    # --- watching -------------------------------------------------------------------------------------------

    def _drive(self, over: Callable[[], bool], deadline: float | None) -> None:
        """Watch and look until `over()` or the deadline, for everybody who waits."""
        pause, failing_since = FIRST_PAUSE, 0.0
        while True:
            left = LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
            try:
                watch, count = self._look(at_once=left <= 0)
                if over() or left <= 0:
                    return
                hint = watch.wait(min(pause, left))
                failing_since = 0.0
            except OperationalError as error:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > PATIENCE:
                    self._fail(error)
                    return
                if left <= 0:
                    return
                self._rest(min(0.1, left))
                continue
            except Exception as error:  # noqa: BLE001 - not a question of patience; everybody hears of it
                self._fail(error)
                return
            pause = FIRST_PAUSE if hint else min(pause * 2, LONGEST_PAUSE)
            if hint and count * _REST_PER_ID > 0.001:
                self._rest(min(count * _REST_PER_ID, max(0.0, left)))

    def _look(self, *, at_once: bool) -> tuple[Watch, int]:
        """Read every state that is waited for; return the watch and how many ids that were.

        What the watch reads by itself is left to its next wait, unless there is none (`at_once`).
        """
        watch = self._watch
        if watch is None:
            watch = self.store.watch()
            with self._lock:
                self._watch, self._fresh = watch, set(self._tickets)
        with self._lock:
            ids = list(self._tickets)
            fresh, self._fresh = self._fresh, set()
            stale, self._stale = self._stale - self._tickets.keys(), set()
        if stale:
            watch.discard(stale)
        # Watched before the look, so that nothing is missed in between.
        if fresh and watch.add(fresh) and not at_once:
            ids = [task_id for task_id in ids if task_id not in fresh]
        for start in range(0, len(ids), CHUNK):
            found = self.store.get(ids[start : start + CHUNK], time.time())
            if found:
                self._deliver(found)
        return watch, len(ids)

    def _look_for(self, ticket: Ticket) -> None:
        found = self.store.get(list(ticket.pending), time.time())
        self._deliver({task_id: record for task_id, record in found.items() if task_id in ticket.pending})

    def _deliver(self, found: dict[str, Record]) -> None:
        ready = [record for record in found.values() if record.state in states.READY_STATES]
        finished: list[Ticket] = []
        with self._lock:
            seen = [(ticket, record) for record in found.values() for ticket in self._tickets.get(record.id, ())]
            for record in ready:
                for ticket in self._tickets.pop(record.id, ()):
                    ticket.records[record.id] = record
                    ticket.pending.discard(record.id)
                    if not ticket.pending:
                        finished.append(ticket)
            self._stale.update(record.id for record in ready)
        for ticket, record in seen:
            if ticket.on_record is not None:
                _safely(ticket.on_record, record)
        for ticket in finished:
            ticket.done = True
            _safely(ticket.notify)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            tickets = {ticket for waiting in self._tickets.values() for ticket in waiting}
            self._tickets.clear()
        self.close()
        for ticket in tickets:
            ticket.error = error
            ticket.done = True
            _safely(ticket.notify)

    def close(self) -> None:
        """Let go of the watch; the next wait opens another."""
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            _safely(watch.close)

    @staticmethod
    def _rest(seconds: float) -> None:
        threading.Event().wait(seconds)


def _safely(function: Callable[..., None], *args: Any) -> None:
    """Call what a user gave us; the thread that waits for everybody must not die of it."""
    try:
        function(*args)
    except Exception:
        logger.exception("a callback of a waiting result failed")


#: Beyond so many stores, the waiters that nobody uses are let go.
MAX_WAITERS = 16
_waiters: dict[int, Waiter] = {}
_registry_lock = threading.Lock()
#: Watches that belong to the parent of a forked process: kept, so that nothing of the parent's is closed.
_inherited: list[Any] = []


def waiter_of(store: Store) -> Waiter:
    """Return this process' waiter for a store; a forked child gets one of its own."""
    waiter = _waiters.get(id(store))
    if waiter is None or waiter.store is not store:
        with _registry_lock:
            waiter = _waiters.get(id(store))
            if waiter is None or waiter.store is not store:
                if len(_waiters) >= MAX_WAITERS:
                    _drop_idle()
                waiter = _waiters[id(store)] = Waiter(store)
    return waiter


def close_waiter(store: Store) -> None:
    """Let go of the waiter of a store that is about to be closed."""
    with _registry_lock:
        waiter = _waiters.pop(id(store), None)
    if waiter is not None:
        waiter.close()


def _drop_idle() -> None:
    for key, waiter in list(_waiters.items()):
        if not waiter.pending():
            del _waiters[key]
            waiter.close()


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    _inherited.append(dict(_waiters))
    _waiters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
