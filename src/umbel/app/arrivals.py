"""Results as they come: the ready states of many tasks, each as soon as it is there, for threads and event loops."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from umbel.app.waiting import Ticket, Waiter
from umbel.core import states
from umbel.core.message import Record

__all__ = ["arrivals", "arrivals_async"]

OnRecord = Callable[[Record], None]


class _Inbox:
    """Collects the ready records of one ticket and rings when there are some."""

    def __init__(self, ids: Iterable[str], ring: Callable[[], None], on_record: OnRecord | None) -> None:
        self._ring = ring
        self._on_record = on_record
        self._records: deque[Record] = deque()
        self.ticket = Ticket(ids, ring, self._note)

    def _note(self, record: Record) -> None:
        if self._on_record is not None:
            self._on_record(record)
        if record.state in states.READY_STATES:
            self._records.append(record)
            self._ring()

    @property
    def settled(self) -> bool:
        """Whether there is something to hand on, or nothing more to wait for."""
        return bool(self._records) or self.ticket.done

    def take(self) -> list[Record]:
        """Return what has come; raise the error of a store that stayed unreachable."""
        taken = [self._records.popleft() for _ in range(len(self._records))]
        if not taken and self.ticket.error is not None:
            raise self.ticket.error
        return taken


def arrivals(
    waiter: Waiter, ids: Iterable[str], pause: Callable[[], float | None], on_record: OnRecord | None = None
) -> Iterator[list[Record]]:
    """Yield the ready records of `ids` in batches as they come, until all are there.

    `pause()` says for how many seconds the next batch may be waited for (None: as long as it takes); an empty batch
    says that these are over. The caller ends the wait by closing the iterator. Raises OperationalError when the store
    stays unreachable.
    """
    event = threading.Event()
    inbox = _Inbox(ids, event.set, on_record)
    try:
        waiter._add(inbox.ticket)
        while True:
            _wait(waiter, inbox, event, pause())
            batch = inbox.take()
            if not batch and inbox.ticket.done:
                return
            yield batch
    finally:
        waiter.discard(inbox.ticket)


def _wait(waiter: Waiter, inbox: _Inbox, event: threading.Event, seconds: float | None) -> None:
    deadline = None if seconds is None else time.monotonic() + seconds
    while not inbox.settled:
        if waiter._take_lead(inbox.ticket, event):
            try:
                waiter._drive(lambda: inbox.settled, deadline)
            finally:
                waiter._hand_over()
        else:
            event.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            event.clear()
        if deadline is not None and time.monotonic() >= deadline:
            return


async def arrivals_async(waiter: Waiter, ids: Iterable[str]) -> AsyncIterator[list[Record]]:
    """The same for coroutines, without a limit of time: `asyncio.timeout` sets one."""
    import asyncio

    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def ring() -> None:
        # A loop that was closed meanwhile has nobody who waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    inbox = _Inbox(ids, ring, None)
    try:
        waiter._add(inbox.ticket)
        waiter._serve()
        while True:
            while not inbox.settled:
                await event.wait()
                event.clear()
            batch = inbox.take()
            if not batch:
                return
            yield batch
    finally:
        waiter.discard(inbox.ticket)
