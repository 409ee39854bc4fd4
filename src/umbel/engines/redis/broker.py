"""The broker, the dead letters and the atomic commit of a Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.message import DeadLetter, Delivery, Depth, Message, Settlement, Stage
from umbel.core.queues import Queue
from umbel.engine.seam import Lease, Refusal
from umbel.engines.redis.adopting import Adopting
from umbel.engines.redis.connection import Client
from umbel.engines.redis.dead import Dead
from umbel.engines.redis.exchanges import Exchanges
from umbel.engines.redis.going_on import GoingOn
from umbel.engines.redis.hearing import Hearing
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.leasing import Leasing
from umbel.engines.redis.looking import Looking
from umbel.engines.redis.sending import Sending
from umbel.engines.redis.server import look
from umbel.engines.redis.settling import Settling
from umbel.engines.redis.store import Revocations
from umbel.engines.redis.waiting import Place, Places


class RedisBroker:
    """Where messages wait: Broker, DeadLetters and Atomic of `umbel.engine.seam` in kombu's lists."""

    def __init__(self, client: Client, keys: Keys, revocations: Revocations) -> None:
        self._client = client
        self._keys = keys
        self._exchanges = Exchanges(client, keys)
        self._sending = Sending(client, keys, self._exchanges)
        self._leasing = Leasing(client, keys, revocations)
        self._adopting = Adopting(client, keys, revocations)
        self._settling = Settling(client, keys, self._sending, self._exchanges)
        self.follow_ups = GoingOn(client, keys, self._sending)
        self._places = Places(client, keys)
        self._looking = Looking(client, keys)
        self._hearing = Hearing(client, keys, self._exchanges.fanouts)
        self._dead = Dead(client, keys, self._sending)
        #: A lease of large messages that is to be on its way once those at hand are started: it keeps Redis busy.
        self._later: tuple[Lease, float, Place] | None = None

    # --- in ------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings known, to kombu's producers too."""
        self._exchanges.declare(queues)

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete copies of Broadcast queues with all that is in them."""
        self._exchanges.remove(queues)
        self._hearing.leave([queue.name for queue in queues])

    def warnings(self) -> list[str]:
        """Return what Redis' own settings mean for messages, where that is not good."""
        return look(self._client).warnings(f"Redis at {self._client.location.address}")

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages; return those that no queue is bound for."""
        return self._sending.publish(messages, now)

    # --- leases --------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take ready messages; with none, wait for one, a due time or `wake`."""
        self._hearing.attend(lease.queues)
        place = self._places.of(lease.owner)
        taken = self._leasing.arrived(lease, now, place)
        if not taken:
            taken = self._take(lease._replace(limit=self._leasing.at_first(lease)), now, wait, place)
        elif lease.limit <= 0:
            self._stop_waiting(lease, now, place)
        self._later = None
        if self._leasing.goes_ahead(lease, len(taken), place):
            rest = lease._replace(limit=lease.limit - len(taken))
            if self._leasing.moves_large:
                self._later = (rest, now, place)
            else:
                self._go_ahead(rest, now, place)
        return taken

    def _go_ahead(self, lease: Lease, now: float, place: Place) -> None:
        with contextlib.suppress(OperationalError):
            self._leasing.go_ahead(lease, now, place)

    def _take(self, lease: Lease, now: float, wait: float, place: Place) -> list[Delivery]:
        lists = [name for _, name in self._keys.lists_of(lease.queues)]
        began = time.monotonic()
        if place.armed and place.queues != lease.queues:
            self._leasing.take(lease._replace(queues=place.queues, limit=0), now, place)
        # Whoever found nothing left a moment ago need not look again before it waits.
        staged = False
        if lease.again and lease.limit > 0 and place.queues == lease.queues:
            left = min(wait, place.quiet_until - began)
            staged = left > 0 and place.wait(lists, left)
        while True:
            elapsed = time.monotonic() - began if wait > 0 else 0.0
            taken = self._leasing.take(lease, now + elapsed, place, keep=lease.again and staged)
            left = wait - (time.monotonic() - began)
            if taken or place.woken() or left <= 0 or lease.limit <= 0:
                if place.armed and not 0 < len(taken) < lease.limit:
                    self._stop_waiting(lease, now + elapsed, place)
                return taken
            staged = place.wait(lists, max(0.0, min(left, place.quiet_until - time.monotonic())))

    def _stop_waiting(self, lease: Lease, now: float, place: Place) -> None:
        """Give back what comes meanwhile: the caller has all that it wants. What it has taken is told in any case."""
        with contextlib.suppress(OperationalError):
            self._leasing.take(lease._replace(limit=0), now, place)

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Take up to the limit of messages that are not due yet, the next ones first, held as any other."""
        return self._leasing.take_scheduled(lease, now)

    def wake(self) -> None:
        """End every lease that waits in this process, or its next wait."""
        self._places.wake()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Write tickets; return the tags that the owner does not hold any more."""
        del now
        stale = self._leasing.start(owner, tickets)
        if self._later is not None and self._later[0].owner == owner:
            later, self._later = self._later, None
            self._go_ahead(*later)
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep the leases of `owner`; False, once, when messages have been taken from it."""
        try:
            self._exchanges.keep(self._leasing.queues_of(owner))
            return self._leasing.extend(owner, seconds, now)
        except OperationalError:
            # The connections that wait are as silent as this one was: they would not notice for a while.
            self._places.wake()
            raise

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases; return the tags that were stale."""
        return self._settling.settle(owner, settlements, now)

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """Apply record, follow-ups, parts and end of lease of each settlement together; return the stale tags."""
        return self._settling.commit(owner, settlements, now)

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over from owners whose deadline has passed or that are known to be dead."""
        return self._leasing.recover(lease, now)

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages as leased to `lease.owner`; return those that it holds now."""
        return self._adopting.adopt(lease, deliveries, now)

    # --- looking and clearing ------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue; no names means every queue that is known."""
        return self._looking.depth(queues, now)

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready and scheduled messages of the queues; return how many."""
        return self._looking.purge(queues)

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are. Lists have no index: they are looked through, long ones not to their end."""
        found = self._looking.find(ids, now)
        missing = set(ids) - found.keys()
        if missing:
            found |= dict.fromkeys(missing & self._dead.ids(), Stage.DEAD)
        return found

    # --- dead letters --------------------------------------------------------------------------------------

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message that was never leased among the dead."""
        self._dead.bury(message, reason, now)

    def browse(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters with a number above `after`, oldest first."""
        return self._dead.browse(after, limit)

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or ids; both None means all."""
        return self._dead.pick(numbers, ids)

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Send letters again; return how many."""
        del now
        return self._dead.revive(numbers)

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters; return how many."""
        return self._dead.drop(numbers)

    def close(self) -> None:
        """Let go of every connection of this process."""
        self._leasing.leave()
        self._hearing.close()
        self._places.close()
        self._client.close()
