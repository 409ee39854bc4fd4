"""The broker on RabbitMQ: publishing, leases as unacknowledged deliveries, and how they end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from umbel.core.errors import EncodeError, NotSupportedError, OperationalError
from umbel.core.message import Delivery, Depth, End, Message, Settlement, Stage
from umbel.core.queues import Queue
from umbel.engine.seam import DeadLetters, Lease
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.consumer import OFTEN, ROUND_TRIP, Consumer
from umbel.engines.rabbitmq.delays import delayed_route, seconds_to_wait
from umbel.engines.rabbitmq.failures import MissingQueue
from umbel.engines.rabbitmq.held import Held
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.mapping import AGAIN, CRASHES, DUE, OFFERS, write_content
from umbel.engines.rabbitmq.publisher import Outgoing
from umbel.engines.rabbitmq.sending import Sending

__all__ = ["RabbitBroker"]

#: How often the keeper looks after connections that nobody reads, and after the others (seconds).
_SOON, _LATER = 0.04, 1.0


class RabbitBroker(Sending):
    """Broker of `umbel.engine.seam` on one RabbitMQ vhost."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        #: Where messages go that nothing can be done with; set by `open_engine`.
        self.dead: DeadLetters | None = None
        self._consumers: dict[str, Consumer] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        #: The process that was woken before it had a consumer; 0 for none.
        self._woken_early = 0
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()

    # --- leases ----------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take deliveries that RabbitMQ has pushed, or pushes within `wait` seconds."""
        return self._consumer(lease.owner).lease(lease, now, wait)

    def _consumer(self, owner: str) -> Consumer:
        if self._pid != os.getpid():
            self._forget()
        consumer = self._consumers.get(owner)
        if consumer is None:
            with self._lock:
                consumer = self._consumers.setdefault(
                    owner, Consumer(self._location, owner, self._prepare, self._put_away)
                )
                if self._keeper is None:
                    self._keeper = threading.Thread(target=self._keep, name="umbel-rabbitmq", daemon=True)
                    self._keeper.start()
            if self._woken_early == self._pid:
                self._woken_early = 0
                consumer.wake()
        return consumer

    def _forget(self) -> None:
        """After a fork: consumers and their connections are the parent's."""
        consumers, self._consumers = self._consumers, {}
        self._pid, self._keeper, self._lock = os.getpid(), None, threading.Lock()
        for consumer in consumers.values():
            consumer.abandon()

    def _keep(self) -> None:
        """Look after the consuming connections while nobody leases."""
        pause = _SOON
        while not self._closed.wait(pause):
            pause = _SOON if any(not consumer.leasing for consumer in self._consumers.values()) else _LATER
            for consumer in list(self._consumers.values()):
                with suppress(OperationalError):
                    consumer.keep(time.monotonic())

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete queues with all that is in them; whoever consumed here has ended (what it still holds goes back)."""
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():
            consumer.close()
        super().remove(queues)

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Return nothing: what waits for its time is in queues of the delays, from where it goes to its own."""
        del lease, now
        return []

    def wake(self) -> None:
        """End every lease that waits, or its next wait."""
        # First, since another thread may be making the first consumer.
        self._woken_early = os.getpid()
        consumers = list(self._consumers.values()) if self._pid == os.getpid() else []
        if consumers:
            self._woken_early = 0
        for consumer in consumers:
            consumer.wake()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Return the tags that are not held any more; RabbitMQ itself remembers no tickets (`caps.remembers`)."""
        del now
        consumer = self._consumers.get(owner)
        if consumer is None:
            return [tag for tag, _, _ in tickets]
        stale = []
        with consumer.lock:
            epoch = consumer.answerable
            for tag, token, _ticket in tickets:
                held = consumer.holds(tag, token)
                if held is not None and held.epoch == epoch:
                    continue
                stale.append(tag)
                if held is not None:
                    # It will not start: when it comes again it is no copy of what still runs.
                    del consumer.held[tag]
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """True always: while the connection stands the leases do, and after a cut each one tells for itself.

        With 0 seconds it is closed.
        """
        del now
        consumer = self._consumers.pop(owner, None) if seconds <= 0 else None
        if consumer is not None:
            consumer.close()
        return True

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Return nothing: what a dead consumer held RabbitMQ delivers again by itself (`caps.recovers`)."""
        del lease, now
        return []

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Not possible: a lease here is a delivery of this connection (`caps.remembers`)."""
        del lease, deliveries, now
        raise NotSupportedError("RabbitMQ cannot take over leases of another broker; ask caps.remembers first")

    # --- ends ------------------------------------------------------------------------------------------------

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases; return the tags that were stale."""
        consumer = self._consumers.get(owner)
        if consumer is None:
            return [item.tag for item in settlements]
        stale: list[Any] = []
        done: list[Held] = []
        back: list[Held] = []
        copies: list[tuple[Held, Settlement]] = []
        seen: set[Any] = set()
        for item in settlements:
            held = consumer.holds(item.tag, item.token)
            if held is None or item.tag in seen:
                stale.append(item.tag)
                continue
            seen.add(item.tag)
            if item.end is End.DONE:
                done.append(held)
            elif item.end is End.RELEASE and held.handed_out < OFTEN:
                back.append(held)
            else:
                copies.append((held, item))
        # First what can fail: an error leaves everything held, so that the call can be repeated.
        stale += self._end_with_copies(consumer, copies, now) if copies else []
        # In one step: what comes again in between has to be known as finished.
        with consumer.lock:
            for held in (*done, *back):
                consumer.held.pop(held.delivery.tag, None)
            stale += [held.delivery.tag for held in consumer.finish(done)]
        if back:
            stale += [held.delivery.tag for held in back if held.epoch != consumer.answerable]
            consumer.put_back(back)
        return stale

    def _end_with_copies(self, consumer: Consumer, copies: Sequence[tuple[Held, Settlement]], now: float) -> list[Any]:
        """End leases whose message goes on elsewhere: stored there first, acknowledged then."""
        stale, batch, sent, buried = [], [], [], []
        for held, item in copies:
            if held.epoch != consumer.answerable:
                del consumer.held[item.tag]
                stale.append(item.tag)
            elif item.end is End.DEAD:
                self._bury(held.delivery, item.reason, now)
                buried.append(held)
            else:
                try:
                    batch.append(self._copy(held, item, now))
                    sent.append(held)
                except EncodeError as error:
                    self._bury(held.delivery, f"cannot go back to its queue: {error}", now)
                    buried.append(held)
        refused = self._send_copies(sent, batch)
        stored = [held for held in sent if held not in refused]
        for held in (*buried, *sent):
            consumer.held.pop(held.delivery.tag, None)
        consumer.drop([*buried, *stored])
        consumer.put_back(refused)
        return stale

    def _copy(self, held: Held, item: Settlement, now: float) -> Outgoing:
        delivery = held.delivery
        due = 0.0 if item.end is End.RELEASE else item.due
        counts = {
            CRASHES: delivery.crashes + (item.end is End.CRASHED),
            OFFERS: delivery.offers + (item.end is End.OFFER),
        }
        return self._again(delivery, counts, due, now)

    def _again(
        self, delivery: Delivery, counts: dict[str, int], due: float, now: float, *, round_trip: bool = False
    ) -> Outgoing:
        """Return the copy of a delivery that goes back to its queue, not before `due` (round trip: in a second)."""
        extra: dict[str, Any] = {name: count for name, count in counts.items() if count}
        if delivery.doubtful:
            extra[AGAIN] = True
        if due > now:
            extra[DUE] = float(due)
        seconds = 1 if round_trip else seconds_to_wait(due, now)
        content = write_content(delivery, now, extra, delayed=seconds > 0)
        exchange, key = "", delivery.queue
        if seconds:
            self._prepare_delay_of(key)
            exchange, key = delayed_route(key, seconds)
        return Outgoing(exchange, key, content, delivery.body, delivery.id)

    def _bury(self, message: Message, reason: str, now: float) -> None:
        if self.dead is None:
            raise OperationalError("this engine keeps no dead letters: it was opened without")
        self.dead.bury(message, reason, now)

    def _put_away(self, consumer: Consumer, unfit: Sequence[tuple[Held, str, float]], now: float) -> None:
        """Deal with deliveries that cannot be leased: park what is due later, quarantine what is malformed."""
        batch, copied, ended = [], [], []
        for held, reason, due in unfit:
            delivery = held.delivery
            try:
                if not reason:
                    counts = {CRASHES: delivery.crashes, OFFERS: delivery.offers}
                    batch.append(self._again(delivery, counts, due, now, round_trip=due == ROUND_TRIP))
                    copied.append(held)
                    continue
                reason = f"malformed message: {reason}"
            except EncodeError as error:
                reason = f"cannot go back to its queue: {error}"
            self._bury(delivery, reason, now)
            ended.append(held)
        refused = self._send_copies(copied, batch)
        consumer.drop([*ended, *(held for held in copied if held not in refused)])
        consumer.put_back(refused)

    def _send_copies(self, held: Sequence[Held], batch: Sequence[Outgoing]) -> list[Held]:
        """Store the copies of deliveries; return those that were refused."""
        stored = self._repeats.stored(held)
        left = [(each, copy) for each, copy in zip(held, batch, strict=True) if id(each) not in stored]
        keys = [each for each, _ in left]
        answers = self._send_once(keys, [copy for _, copy in left]) if left else []
        self._repeats.done(held)
        return [each for each, answer in zip(keys, answers, strict=True) if answer]

    # --- looking and clearing --------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the ready messages of the queues; no names means those declared or leased from here."""
        del now
        names = queues or sorted(self.known)
        counts = self._with_link(self._ask_each, names, "count the messages of", _count)
        return {name: Depth(ready=counts.get(name, 0)) for name in names}

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready messages of the queues; return how many. What waits for its time is not among them."""
        return sum(self._with_link(self._ask_each, queues, "purge", _purge).values())

    @staticmethod
    def _ask_each(link: Link, names: Sequence[str], doing: str, ask: Any) -> dict[str, int]:
        answers = {}
        for name in names:
            with suppress(MissingQueue), link.questions(f"{doing} the queue {name!r}") as channel:
                answers[name] = ask(channel, name)
        return answers

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Return nothing: RabbitMQ does not tell where a message is (`caps.find`)."""
        del ids, now
        return {}

    def close(self) -> None:
        """Close the connections; what is leased and not settled goes back to its queues."""
        self._closed.set()
        if self._keeper is not None and self._pid == os.getpid():
            self._keeper.join(2.0)
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()
        self.close_senders()


def _count(channel: Any, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).message_count)


def _purge(channel: Any, name: str) -> int:
    return int(channel.queue_purge(name) or 0)
