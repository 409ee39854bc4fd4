"""Group commit: whatever outcomes have gathered are settled in one step, at once when idle."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from umbel.core.errors import OperationalError
from umbel.core.message import End, Settlement
from umbel.engine.clock import Clock
from umbel.engine.seam import Engine
from umbel.engine.settle import commit
from umbel.worker.service import Service

logger = logging.getLogger("umbel.worker")

#: The most settlements of one commit: bounds how long the database is locked.
MAX_BATCH = 500
#: With more jobs in flight than _FEW, a commit waits _GATHER seconds for company unless _FULL are there.
_FEW, _FULL, _GATHER = 16, 200, 0.003
_RETRY_FIRST = 0.05
_RETRY_LAST = 2.0


class Settler(Service):
    """Commits settlements in the order they came; a commit that fails is tried again until it succeeds.

    Nothing is given up here: the leases are kept alive meanwhile, and if they are lost all the same the engine
    says that the writes are stale.
    """

    name = "settler"

    def __init__(self, engine: Engine, owner: str, clock: Clock, in_flight: Callable[[], int]) -> None:
        super().__init__()
        self._engine = engine
        self._owner = owner
        self._clock = clock
        self._in_flight = in_flight
        self._waiting: list[Settlement] = []
        #: Other calls of the engine that are to be made in this thread, until they succeed.
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._draining = 0

    def put(self, settlements: Sequence[Settlement]) -> None:
        """Take in settlements; they are committed soon."""
        with self._changed:
            self._waiting.extend(settlements)
            self._changed.notify()

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Commit settlements here and now if nothing else is being committed, else as `put` does.

        For an idle worker: handing one outcome to another thread would take longer than committing it.
        """
        with self._changed:
            if self._waiting or self._busy or self._calls:
                self._waiting.extend(settlements)
                self._changed.notify()
                return
            self._busy = len(settlements)
        batch = list(settlements)
        try:
            self._once(batch)
            batch = []
        except OperationalError as exc:
            logger.warning("Cannot store the outcome of %d tasks at once: %s", len(batch), exc)
        finally:
            with self._changed:
                self._busy = 0
                self._waiting[:0] = batch
                # Nobody is woken who has nothing to do: it would take the processor from the tasks.
                if self._waiting or self._draining:
                    self._changed.notify_all()

    def call(self, call: Callable[[], None]) -> None:
        """Have this made soon, and again while it raises OperationalError."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    @property
    def pending(self) -> int:
        """How many settlements are not committed yet, and calls not made."""
        return len(self._waiting) + self._busy + len(self._calls)

    def wake(self) -> None:
        """End the wait for settlements."""
        with self._changed:
            self._changed.notify_all()

    def drain(self, timeout: float | None) -> bool:
        """Wait until everything is committed; False after `timeout` seconds."""
        with self._changed:
            self._draining += 1
            try:
                return self._changed.wait_for(lambda: self.pending == 0, timeout)
            finally:
                self._draining -= 1

    def run(self) -> None:
        """Commit what gathers until told to stop and nothing is left."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting or self._calls) or self.stopping.is_set())
                if not self._waiting and not self._calls:
                    return
            self._gather()
            with self._changed:
                batch = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                self._busy = len(batch)
            self._commit(batch)
            with self._changed:
                self._busy = 0
                if self._draining:
                    self._changed.notify_all()

    def _gather(self) -> None:
        """While many tasks are on their way, let a few more outcomes come in: a commit costs as much as ten rows."""
        if self._in_flight() > _FEW and len(self._waiting) < _FULL and not self.stopping.is_set():
            self.stopping.wait(_GATHER)

    def _commit(self, batch: list[Settlement]) -> None:
        delay = _RETRY_FIRST
        while True:
            try:
                self._once(batch)
            except OperationalError as exc:
                self.troubles.tell(f"Cannot store the outcome of {len(batch)} tasks, trying again", exc)
                if self.stopping.wait(delay):
                    logger.critical(
                        "Stopping with %d outcomes not stored; their tasks will be delivered again",
                        len(batch),
                    )
                    return
                delay = min(delay * 2, _RETRY_LAST)
                continue
            return

    def _once(self, batch: list[Settlement]) -> None:
        while self._calls:
            self._calls[0]()
            self._calls.popleft()
        if not batch:
            return
        stale = commit(self._engine, self._engine, self._owner, batch, self._clock.now())
        if stale:
            self._tell_stale(batch, len(stale))

    def _tell_stale(self, batch: list[Settlement], count: int) -> None:
        ended = sum(1 for settlement in batch if settlement.end is End.DONE)
        logger.warning(
            "%d of %d outcomes (%d of them final) were refused: the lease was over, and what another worker makes "
            "of the task counts. Tasks end like this that run while the broker's connection is cut, or while the "
            "worker is frozen for longer than worker_lease.",
            count,
            len(batch),
            ended,
        )
