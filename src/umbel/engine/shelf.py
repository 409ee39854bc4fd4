"""A broker that remembers what has started, made of one that cannot (RabbitMQ) and one that keeps it for it: the shelf.

A delivery under early acknowledgement goes onto the shelf when it starts, and is acknowledged at the main broker: a cut
connection repeats nothing, and no task is too long. One under late acknowledgement stays with the main broker and
follows when it has been held for `hold` seconds. What is to run again is published to the main broker (confirmed)
before it ends on the shelf. A copy that the main broker delivers again, since it died or was cut off before it heard of
the acknowledgement, is known by (id, generation, queue) and its attempt (`core/attempts.py`), and dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from umbel.core.attempts import attempt_of, with_attempt
from umbel.core.errors import OperationalError
from umbel.core.message import EARLY, Delivery, Depth, End, Settlement, Stage
from umbel.engine.holdings import Holdings, Kept, Key, OnShelf
from umbel.engine.seam import Broker, DeadLetters, Engine, Lease, Store
from umbel.engine.shelf_file import open_shelf_file

__all__ = ["HOLD", "Shelved", "shelve"]

#: Seconds after which a delivery under late acknowledgement moves to the shelf: well below the 30 minutes after which
#: RabbitMQ closes the channel of a consumer that has not acknowledged.
HOLD = 300.0
_BACK = frozenset({End.RELEASE, End.REQUEUE, End.CRASHED, End.OFFER})

_Pair = tuple[Kept, Settlement]


class Shelved:
    """Broker of `umbel.engine.seam`: messages wait at `main`, what has started is kept by the broker of `shelf`.

    `shelf` is an engine, or a function that opens one when a worker first needs it; that one is closed with this
    broker. `scope` tells the messages of several main brokers on one shelf apart. `dead` takes what must not run again.
    """

    def __init__(
        self,
        main: Broker,
        shelf: Engine | Callable[[], Engine],
        *,
        dead: DeadLetters | None = None,
        scope: str = "",
        hold: float = HOLD,
    ) -> None:
        self._main = main
        self._engine = shelf if isinstance(shelf, Engine) else None
        self._open = None if isinstance(shelf, Engine) else shelf
        self._dead = dead
        self._prefix = f"umbel.shelf:{scope}:"
        self._hold = hold
        self._lock = threading.Lock()
        self._holdings = Holdings()
        #: Acknowledgements that the main broker has not taken yet, by owner.
        self._owed: dict[str, list[Settlement]] = {}
        #: Held while something is put onto the shelf, and what a call that failed may have put there, by owner.
        self._adopting = threading.Lock()
        self._unsure: dict[str, Sequence[Kept]] = {}
        #: For how long each owner leases.
        self._seconds: dict[str, float] = {}
        self.declare = main.declare
        self.remove = main.remove
        self.publish = main.publish
        self.purge = main.purge
        self.wake = main.wake
        self.lease_scheduled = main.lease_scheduled

    @property
    def _shelf(self) -> Broker:
        with self._lock:
            if self._engine is None:
                assert self._open is not None
                self._engine = self._open()
        if self._engine.broker is None:
            raise OperationalError("the engine that is to remember what has started keeps no messages")
        return self._engine.broker

    # --- leases --------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take ready messages from the main broker; copies of what is on the shelf are dropped."""
        self._seconds[lease.owner] = lease.seconds
        return self._take_in(lease.owner, self._main.lease(lease, now, wait), now)

    def _take_in(self, owner: str, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Take over what the main broker has leased; end there what is a copy, and return the others."""
        fresh: list[Delivery] = []
        copies: list[Settlement] = []
        for delivery in deliveries:
            if self._holdings.take(owner, delivery, attempt_of(delivery.head) + 1, now):
                fresh.append(delivery)
            else:
                copies.append(Settlement(delivery.tag, delivery.token))
        if copies:
            self._acknowledge(owner, copies, now)
        return fresh

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Put what is acknowledged early onto the shelf and acknowledge it; return what is not held any more.

        So is a copy of what another worker has on the shelf.
        """
        with self._holdings.working(owner, [tag for tag, _, _ in tickets]) as kept:
            stale = [tag for tag, token, _ in tickets if tag not in kept or kept[tag].token != token]
            mine = [(kept[tag], token, ticket) for tag, token, ticket in tickets if tag not in stale]
            here = [(k.shelved, ticket) for k, _, ticket in mine if k.shelved is not None]
            if here:
                wrong = set(self._shelf.start(owner, [(d.tag, d.token, ticket) for d, ticket in here], now))
                stale += [k.tag for k, _, _ in mine if k.shelved is not None and k.shelved.tag in wrong]
            there = [(k, ticket) for k, _, ticket in mine if k.shelved is None]
            if there:
                stale += self._start_there(owner, there, now)
        return stale

    def _start_there(self, owner: str, pairs: Sequence[tuple[Kept, int]], now: float) -> list[Any]:
        """Start what the main broker holds; return what is not held any more."""
        gone = set(self._main.start(owner, [(k.tag, k.token, ticket) for k, ticket in pairs], now))
        early = []
        for k, ticket in pairs:
            k.ticket = ticket
            # One that may be on the shelf is ours, whatever became of it at the main broker.
            if ticket & EARLY and (k.tag not in gone or k.doubtful or k.shelved is not None):
                gone.discard(k.tag)
                early.append(k)
        # Published twice, since the first reply was lost, and the first of them has just ended.
        copies = [k for k in early if not k.doubtful and k.shelved is None and self._holdings.outlived(k)]
        if copies:
            self._acknowledge(owner, [Settlement(k.tag, k.token) for k in copies], now)
            gone.update(k.tag for k in copies)
            early = [k for k in early if k.tag not in gone]
        self._holdings.forget([k for k, _ in pairs if k.tag in gone])
        return [*gone, *self._move(owner, early, now)]

    def _move(self, owner: str, kept: Sequence[Kept], now: float) -> list[Any]:
        """Put messages of the main broker onto the shelf and acknowledge them; return the tags of mere copies."""
        if not kept:
            return []
        with self._adopting:
            # A call that failed may have worked: the very same one comes before any other.
            again = self._unsure.get(owner, ())
            copies = self._adopt(owner, again, now) if again else []
            here = [(k.shelved, k.ticket) for k in kept if k.shelved is not None]
            if here:
                self._shelf.start(owner, [(d.tag, d.token, ticket) for d, ticket in here], now)
            copies += self._adopt(owner, [k for k in kept if k.shelved is None and k not in again], now)
        return [k.tag for k in copies if k in kept]

    def _adopt(self, owner: str, kept: Sequence[Kept], now: float) -> list[Kept]:
        if not kept:
            return []
        self._unsure[owner] = kept
        for k in kept:
            k.doubtful = True
        # One that was published twice, since the first reply was lost, may come twice at once.
        once = list({k.key: k for k in reversed(kept)}.values())[::-1]
        lease = Lease((), owner, len(once), self._seconds.get(owner, 30.0))
        taken = self._shelf.adopt(lease, [self._labelled(k) for k in once], now)
        del self._unsure[owner]
        skipped = len(self._prefix)
        found: dict[Key, Delivery] = {(d.id, d.generation, d.queue[skipped:]): d for d in taken}
        copies = self._holdings.shelved(kept, found)
        self._acknowledge(owner, [Settlement(k.tag, k.token) for k in kept], now)
        self._holdings.forget(copies)
        return copies

    def _acknowledge(self, owner: str, settlements: Sequence[Settlement], now: float) -> None:
        """End at the main broker what it need not keep; tried again with the next heartbeat where that fails.

        An acknowledgement that is lost with its connection brings a copy, which is known when it comes.
        """
        with self._lock:
            owed = [*self._owed.pop(owner, ()), *settlements]
        if not owed:
            return
        try:
            self._main.settle(owner, owed, now)
        except OperationalError:
            with self._lock:
                self._owed[owner] = [*owed, *self._owed.get(owner, ())]

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep the leases on both; move to the shelf what the main broker has been waiting for too long."""
        self._seconds[owner] = seconds
        held = self._main.extend(owner, seconds, now)
        if self._engine is not None and not self._shelf.extend(owner, seconds, now):
            held = False
        self._acknowledge(owner, (), now)
        with self._holdings.working_on_old(owner, now - self._hold) as old:
            if old:
                gone = set(self._main.start(owner, [(k.tag, k.token, k.ticket) for k in old], now))
                self._move(owner, [k for k in old if k.tag not in gone], now)
        return held

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over what dead owners have on the shelf, and what the main broker knows of dead owners."""
        queues = lease.queues or tuple(
            name.removeprefix(self._prefix) for name in self._shelf.depth((), now) if name.startswith(self._prefix)
        )
        taken: list[Delivery] = []
        if queues:
            named = lease._replace(queues=tuple(self._prefix + queue for queue in queues))
            for delivery in self._shelf.recover(named, now):
                # Whoever was frozen when about to put it there may have done so after a copy had run elsewhere.
                known = msgspec.structs.replace(self._unlabelled(delivery), doubtful=True)
                taken.append(self._holdings.inherit(lease.owner, delivery, known, now))
        left = lease._replace(limit=lease.limit - len(taken))
        more = self._main.recover(left, now) if left.limit > 0 else []
        return taken + self._take_in(lease.owner, more, now)

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages on the shelf as leased to `lease.owner`; return those that it holds now."""
        labelled = [msgspec.structs.replace(d, queue=self._prefix + d.queue) for d in deliveries]
        taken = self._shelf.adopt(lease, labelled, now)
        return [self._holdings.inherit(lease.owner, d, self._unlabelled(d), now) for d in taken]

    # --- ends ----------------------------------------------------------------------------------------------

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases with whichever broker holds them; return the tags that were stale."""
        with self._holdings.working(owner, [settlement.tag for settlement in settlements]) as kept:
            # What an earlier attempt at this very call has settled is not stale.
            left = [s for s in settlements if not self._holdings.was_settled(owner, s.tag, s.token)]
            right = {s.tag: kept[s.tag] for s in left if s.tag in kept and kept[s.tag].token == s.token}
            self._move(owner, [k for k in right.values() if k.doubtful], now)
            here = [(right[s.tag], s) for s in left if s.tag in right and right[s.tag].shelved is not None]
            tags = {k.tag for k, _ in here}
            there = [s for s in left if s.tag not in tags and not isinstance(s.tag, OnShelf)]
            stale = [s.tag for s in left if s.tag not in tags and isinstance(s.tag, OnShelf)]
            if there:
                stale += self._main.settle(owner, there, now)
                self._holdings.settled(owner, [right[s.tag] for s in there if s.tag in right])
            if here:
                stale += self._end_here(owner, here, now)
            self._holdings.complete(owner, settlements)
        return _in_order(stale, settlements) if len(stale) > 1 else stale

    def _end_here(self, owner: str, pairs: Sequence[_Pair], now: float) -> list[Any]:
        """End what is on the shelf: first what is to run again is published, and what is given up buried."""
        stale: set[Any] = set()
        moving = [(k, s) for k, s in pairs if s.end is not End.DONE]
        if moving:
            # Whoever has lost the lease must not send the message round once more.
            asked = [(d.tag, d.token, d.ticket) for d in (k.shelved for k, _ in moving) if d is not None]
            lost = set(self._shelf.start(owner, asked, now))
            stale = {k.tag for k, _ in moving if k.shelved is not None and k.shelved.tag in lost}
            moving = [(k, s) for k, s in moving if k.tag not in stale]
            self._send_on(moving, now)
        ends = [(k, k.shelved) for k, _ in pairs if k.tag not in stale and k.shelved is not None]
        refused = set(self._shelf.settle(owner, [Settlement(d.tag, d.token) for _, d in ends], now))
        # What was sent on may have come round to another worker by now, whose lease is the newer one.
        sent_on = {k.tag for k, _ in moving}
        stale |= {k.tag for k, d in ends if d.tag in refused and k.tag not in sent_on}
        self._holdings.settled(owner, [k for k, _ in pairs])
        return list(stale)

    def _send_on(self, pairs: Sequence[_Pair], now: float) -> None:
        going = [self._going_back(k, s) for k, s in pairs if s.end in _BACK]
        for refusal in self._main.publish(going, now) if going else ():
            if self._dead is None:
                raise refusal.error
            self._dead.bury(going[refusal.index], str(refusal.error), now)
        for k, settlement in pairs:
            if settlement.end is End.DEAD:
                if self._dead is None:
                    raise OperationalError("this engine keeps no dead letters, and a message was given up")
                self._dead.bury(self._going_back(k, settlement), settlement.reason, now)

    @staticmethod
    def _going_back(kept: Kept, settlement: Settlement) -> Delivery:
        """Return what is published: the same object however often that has to be tried."""
        if kept.going_back is None:
            delivery, end = kept.delivery, settlement.end
            kept.going_back = msgspec.structs.replace(
                delivery,
                exchange="",
                due=settlement.due if end in _BACK and end is not End.RELEASE else 0.0,
                crashes=delivery.crashes + (end is End.CRASHED),
                offers=delivery.offers + (end is End.OFFER),
                head=with_attempt(delivery.head, kept.attempt if kept.shelved is None else kept.shelved.token),
                ticket=0,
                former_owner="",
            )
        return kept.going_back

    # --- looking -------------------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue at the main broker, and as leased what is on the shelf."""
        counts = self._main.depth(queues, now)
        if self._engine is not None:
            shelved = self._shelf.depth([self._prefix + name for name in queues or counts], now) if counts else {}
            for name, depth in shelved.items():
                plain = name.removeprefix(self._prefix)
                if plain in counts:
                    counts[plain].leased += depth.leased
        return counts

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are: what is on the shelf is leased or has started."""
        found = self._main.find(ids, now)
        if self._engine is not None:
            found = {**found, **self._shelf.find(ids, now)}
        return found

    def close(self) -> None:
        """Let go of the main broker, and of the shelf where it was opened here."""
        with suppress(AttributeError):
            self._main.close()  # type: ignore[attr-defined]
        if self._open is not None:
            with self._lock:
                engine, self._engine = self._engine, None
            if engine is not None:
                engine.close()

    # --- names ---------------------------------------------------------------------------------------------

    def _labelled(self, kept: Kept) -> Delivery:
        d = kept.delivery
        return msgspec.structs.replace(
            d, queue=self._prefix + d.queue, token=kept.attempt, ticket=kept.ticket, former_owner="", exchange=""
        )

    def _unlabelled(self, delivery: Delivery) -> Delivery:
        return msgspec.structs.replace(delivery, queue=delivery.queue.removeprefix(self._prefix))


class _Forgetting:
    """Dead letters of one engine whose results are in another: reviving forgets them, or they would stay final."""

    def __init__(self, dead: DeadLetters, store: Store) -> None:
        self._dead = dead
        self._store = store
        self.bury = dead.bury
        self.browse = dead.browse
        self.pick = dead.pick
        self.drop = dead.drop

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Forget the results, then send letters again: a worker may be faster than what comes after."""
        self._store.forget([letter.message.id for letter in self._dead.pick(numbers, None)])
        return self._dead.revive(numbers, now)


def _in_order(stale: Sequence[Any], settlements: Sequence[Settlement]) -> list[Any]:
    places = {settlement.tag: place for place, settlement in enumerate(settlements)}
    return sorted(stale, key=lambda tag: places.get(tag, 0))


def shelve(engine: Engine, results: Engine | None = None) -> Engine:
    """Return the engine with a broker that remembers what has started, and dead letters that know of the results.

    A broker that remembers by itself stays as it is.

    The shelf is the broker of `results`, the engine of the result backend, where that one remembers and is shared or
    at least outlives the process (Redis, SQLite). Elsewhere it is a SQLite file of this host and user below the state
    directory (`$XDG_STATE_HOME/umbel`, by default `~/.local/state/umbel`), opened when a worker first needs it: what a
    dead worker had started is then found by the next worker on the same host. Closing what is returned closes that
    file.
    """
    if engine.dead is not None and results is not None and results is not engine and results.store is not None:
        engine = replace(engine, dead=_Forgetting(engine.dead, results.store))
    if engine.broker is None or engine.caps.remembers:
        return engine
    shelf: Engine | Callable[[], Engine] = partial(open_shelf_file, engine.url)
    caps = replace(engine.caps, remembers=True)
    if results is not None and results.broker is not None and results.caps.remembers and results.caps.shared:
        shelf, caps = results, replace(caps, start_looks=results.caps.adopt_looks)
    scope = urlsplit(engine.url.partition(";")[0]).path.strip("/")
    broker = Shelved(engine.broker, shelf, dead=engine.dead, scope=scope)
    return replace(engine, broker=broker, caps=caps)
