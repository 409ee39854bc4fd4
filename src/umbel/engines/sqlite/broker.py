"""The broker, the dead letters and the atomic commit of a SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Any

from umbel.core.message import DeadLetter, Delivery, Depth, Message, Settlement, Stage
from umbel.core.queues import Broadcast, Queue
from umbel.engine.seam import Lease, Refusal
from umbel.engines.sqlite import adopting, bells, copies, counting, dead, leases, messages, settling
from umbel.engines.sqlite.bells import Ringer
from umbel.engines.sqlite.database import Database
from umbel.engines.sqlite.failures import UNSTORABLE


class SqliteBroker:
    """Where messages wait: Broker, DeadLetters and Atomic of `umbel.engine.seam` over one file."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer
        self._queues = messages.Queues(lambda: database.openings)
        self._bells = bells.Own(database.location.bells, bells.QUEUE)
        self._turn = 0
        #: The copies of Broadcast queues that this process consumes.
        self._copies: set[str] = set()

    # --- in ------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings exist."""
        self._database.write(self._declare, queues)

    def _declare(self, connection: sqlite3.Connection, queues: Sequence[Queue]) -> None:
        for queue in queues:
            if not queue.no_declare:
                self._queues.create(connection, queue.name)
            messages.bind(connection, queue)
            if isinstance(queue, Broadcast) and not queue.no_declare:
                copies.note(connection, queue.name)
                self._copies.add(queue.name)

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete queues with all that is in them."""
        names = [queue.name for queue in queues]
        self._copies.difference_update(names)
        self._database.write(copies.remove, names)

    def publish(self, messages_: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages in one transaction; return those that no queue is bound for or that cannot be stored."""
        try:
            refused = self._database.write(messages.insert, self._queues, messages_, now)
        except UNSTORABLE:
            refused = self._database.write(messages.insert, self._queues, messages_, now, careful=True)
        self._ringer.ring(bells.QUEUE)
        return refused

    # --- leases --------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take ready messages; with none, wait for a bell, a due time or `wake`."""
        self._database.look_after_log()
        bell = self._bells.get(lease.owner)
        began = time.monotonic()
        self._turn += 1
        while True:
            woken = bell.drain()
            elapsed = time.monotonic() - began if wait > 0 else 0.0
            queues, worth, due = self._database.read(self._look, lease, now, now + elapsed)
            if worth:
                taken = self._database.write(leases.take, queues, lease, now + elapsed)
                if taken:
                    return taken
                due = self._database.read(leases.next_due)
            left = wait - elapsed
            if woken or left <= 0 or lease.limit <= 0:
                return []
            bell.wait(left if due is None else min(left, due - now - elapsed))

    def _look(
        self, connection: sqlite3.Connection, lease: Lease, began: float, now: float
    ) -> tuple[list[tuple[str, int]], bool, float | None]:
        queues = self._queues.find(connection, lease.queues)
        if len(queues) > 1:
            # Round robin: every call begins with the next queue.
            first = self._turn % len(queues)
            queues = queues[first:] + queues[:first]
        if lease.limit > 0 and leases.worth_leasing(connection, queues, lease, began, now):
            return queues, True, None
        return queues, False, leases.next_due(connection)

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Take up to the limit of messages that are not due yet, the next ones first, held as any other."""
        queues = self._database.read(self._queues.find, lease.queues)
        return self._database.write(leases.take_scheduled, queues, lease, now)

    def wake(self) -> None:
        """End every lease that waits in this process, or its next wait."""
        self._bells.wake()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Write tickets; return the tags that the owner does not hold any more."""
        del now
        return self._database.write(leases.start, owner, tickets)

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep the leases of `owner`; False, once, when messages have been taken from it."""
        held: bool = True
        if not self._database.read(leases.is_idle, owner):
            held = self._database.write(leases.extend, owner, now + seconds)
        if self._database.read(copies.exist):
            self._database.write(copies.keep, self._copies, now)
        return held

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases; return the tags that were stale."""
        _, settled = self._database.write(settling.settle, owner, settlements, now)
        if settled.returned:
            self._ringer.ring(bells.QUEUE)
        return settled.stale

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """Apply record, follow-ups and end of lease of each settlement in one transaction; return stale tags."""
        try:
            settled = self._database.write(settling.commit, self._queues, owner, settlements, now)
        except UNSTORABLE:
            settled = self._database.write(settling.commit, self._queues, owner, settlements, now, careful=True)
        if settled.recorded:
            self._ringer.ring(bells.RESULT)
        if settled.returned:
            self._ringer.ring(bells.QUEUE)
        return settled.stale

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over from owners whose deadline has passed, and at once from those whose process is dead."""
        self._database.look_after_log()
        owners = self._database.read(leases.candidates, lease.owner)
        dead_names = {name for _, name, _ in owners if name in lease.dead or self._ringer.is_dead(name)}
        if not dead_names and all(deadline > now for _, _, deadline in owners):
            return []
        self._bells.get(lease.owner)
        taken, emptied = self._database.write(leases.take_over, lease, now, dead_names.__contains__)
        for name in emptied:
            self._ringer.remove(name)
        return taken

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages as leased to `lease.owner`; return those that it holds now."""
        if not deliveries:
            return []
        self._bells.get(lease.owner)
        try:
            return self._database.write(adopting.adopt, self._queues, lease, deliveries, now)
        except UNSTORABLE:
            return self._database.write(adopting.adopt, self._queues, lease, deliveries, now, careful=True)

    # --- looking and clearing ------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue; no names means every queue."""
        return self._database.read(counting.depth, queues, now)

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready and scheduled messages of the queues, some thousands in a transaction."""
        total = 0
        for queue in queues:
            while gone := self._database.write(counting.purge, queue):
                total += gone
        return total

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are."""
        return self._database.read(counting.find, ids, now)

    # --- dead letters --------------------------------------------------------------------------------------

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message that was never leased among the dead."""
        self._database.write(dead.bury, message, reason, now)

    def browse(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters with a number above `after`, oldest first."""
        return self._database.read(dead.browse, after, limit)

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or ids; both None means all."""
        return self._database.read(dead.pick, numbers, ids)

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Send letters again; return how many."""
        sent = self._database.write(dead.revive, self._queues, numbers, now)
        self._ringer.ring(bells.QUEUE)
        return sent

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters; return how many."""
        return self._database.write(dead.drop, numbers)

    def close(self) -> None:
        """Let go of bells and connections."""
        self._bells.close()
        self._ringer.close()
        self._database.close()
