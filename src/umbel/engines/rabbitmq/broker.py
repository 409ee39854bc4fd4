"""The broker on RabbitMQ: publishing, leases as unacknowledged deliveries, and how they end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from umbel.core.errors import EncodeError, NotSupportedError, OperationalError, Unroutable
from umbel.core.message import Delivery, Depth, End, Message, Settlement, Stage
from umbel.core.queues import Queue
from umbel.core.routing import bound_queues
from umbel.engine.seam import DeadLetters, Lease, Refusal
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.consumer import OFTEN, ROUND_TRIP, Consumer, Held
from umbel.engines.rabbitmq.delays import Delays, delayed_route, seconds_to_wait
from umbel.engines.rabbitmq.failures import LostConnection, MissingQueue
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.mapping import CRASHES, DUE, OFFERS, write_content
from umbel.engines.rabbitmq.publisher import NACKED, Outgoing, Pool, Publisher
from umbel.engines.rabbitmq.topology import declare_queue, missing_queue

__all__ = ["RabbitBroker"]

#: How often the keeper looks after connections that nobody reads, and after the others (seconds).
_SOON, _LATER = 0.04, 1.0


class RabbitBroker:
    """Broker of `umbel.engine.seam` on one RabbitMQ vhost."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.pool = Pool(location)
        self.publisher = Publisher(location, self.pool)
        self.delays = Delays(location.delay_queue_type)
        #: Where messages go that nothing can be done with; set by `open_engine`.
        self.dead: DeadLetters | None = None
        #: Queues as they were declared here, by name.
        self.known: dict[str, Queue] = {}
        self._exchanges: set[str] = set()
        self._consumers: dict[str, Consumer] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()
        #: Messages that the last failed `publish` had stored, by identity: a repeat of that call leaves them out.
        self._stored: dict[int, Message] = {}
        #: Queues for results that have to exist before anything more is published, and their arguments.
        self.reply_queues: dict[str, dict[str, Any]] = {}

    # --- topology --------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings exist."""
        self.known |= {queue.name: queue for queue in queues}
        for queue in queues:
            self._with_link(declare_queue, queue)

    def _with_link(self, call: Any, *arguments: Any) -> Any:
        link, confirms = self.pool.take()
        try:
            return call(link, *arguments)
        finally:
            self.pool.give(link, confirms)

    def _make(self, link: Link, name: str) -> None:
        """Make one queue exist, as it was declared here or else as Celery makes queues that nobody described."""
        known = self.known.get(name)
        if known is not None:
            declare_queue(link, known)
            return
        try:
            with link.questions(f"look for the queue {name!r}") as channel:
                channel.queue_declare(name, passive=True)
        except MissingQueue:
            declare_queue(link, missing_queue(name))

    def _prepare(self, link: Link, name: str) -> bool:
        """See to it that a queue can be consumed from; False while nobody has made it or said what it is like.

        One that exists with other arguments than declared here is consumed all the same.
        """
        try:
            if name in self.known:
                declare_queue(link, self.known[name])
                return True
        except LostConnection:
            raise
        except OperationalError:
            pass
        try:
            with link.questions(f"look for the queue {name!r}") as channel:
                channel.queue_declare(name, passive=True)
        except MissingQueue:
            return False
        return True

    # --- publishing ------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages; return those that were refused. Returns when RabbitMQ has confirmed all others."""
        if self.reply_queues:
            self.declare_replies()
        refusals: list[Refusal] = []
        batch: list[Outgoing] = []
        places: list[int] = []
        stored, self._stored = self._stored, {}
        for index, message in enumerate(messages):
            if stored and id(message) in stored:
                continue
            try:
                for outgoing in self._outgoing(message, now):
                    batch.append(outgoing)
                    places.append(index)
            except (EncodeError, Unroutable) as error:
                refusals.append(Refusal(index, error))
        answers: list[str] = []
        try:
            answers = self._send(batch, answers)
        except OperationalError:
            done = {index for index, answer in zip(places, answers, strict=False) if not answer}
            done -= {index for index, answer in zip(places, answers, strict=False) if answer}
            self._exchanges.clear()
            self._stored = {**stored, **{id(messages[index]): messages[index] for index in done}}
            raise
        for index, answer, outgoing in zip(places, answers, batch, strict=True):
            if answer:
                refusals.append(Refusal(index, _refusal(messages[index], answer, outgoing)))
        return sorted(refusals, key=lambda refusal: refusal.index)

    def declare_replies(self) -> None:
        """Make the queues exist that results are to be sent to."""
        for name, arguments in list(self.reply_queues.items()):
            self._with_link(_declare_reply, name, arguments)
            self.reply_queues.pop(name, None)

    def delete_queues(self, names: Collection[str]) -> None:
        """Delete queues for good."""
        for name in names:
            self._with_link(_delete, name)

    def _outgoing(self, message: Message, now: float) -> list[Outgoing]:
        exchange, key = message.exchange, message.queue
        if exchange and exchange not in self._exchanges:
            self._with_link(self._look_for_exchange, message)
        seconds = seconds_to_wait(message.due, now) if message.due else 0
        content = write_content(message, now, _counts(message), delayed=seconds > 0)
        if seconds:
            routes = self._delayed(exchange, key, seconds)
            return [Outgoing(*route, content, message.body, message.id) for route in routes]
        return [Outgoing(exchange, key, content, message.body, message.id)]

    def _look_for_exchange(self, link: Link, message: Message) -> None:
        """Publishing to an exchange that is missing would end the connection, and with it a whole batch."""
        try:
            with link.questions(f"look for the exchange {message.exchange!r}") as channel:
                channel.exchange_declare(message.exchange, "direct", passive=True)
        except MissingQueue as error:
            raise Unroutable(
                f"task {message.task}: there is no exchange {message.exchange!r}; add a queue that is bound to it to "
                "task_queues, or correct the route"
            ) from error
        self._exchanges.add(message.exchange)

    def _delayed(self, exchange: str, key: str, seconds: int) -> list[tuple[str, str]]:
        """Return where to publish so that the message takes its way after so many seconds."""
        if not exchange:
            self._with_link(self._prepare_delay, key)
            return [delayed_route(key, seconds)]
        kinds = {name: kind for queue in self.known.values() for name, kind, _ in queue.routes()}
        if kinds.get(exchange, "direct") == "direct":
            # A direct exchange knows no key with digits in front: the queues are found here instead.
            names = bound_queues(self.known.values(), exchange, key)
            if not names:
                return [(exchange, key)]
            for name in names:
                self._with_link(self._prepare_delay, name)
            return [delayed_route(name, seconds) for name in names]
        self._with_link(self._prepare_exchange_delay, exchange, key)
        return [delayed_route(key, seconds)]

    def _prepare_delay(self, link: Link, queue: str) -> None:
        try:
            self.delays.prepare(link, queue)
        except MissingQueue:
            self._make(link, queue)
            self.delays.prepare(link, queue)

    def _prepare_exchange_delay(self, link: Link, exchange: str, key: str) -> None:
        for queue in self.known.values():
            for name, kind, pattern in queue.routes():
                if name == exchange and kind == "topic":
                    self.delays.bind_pattern(link, queue.name, exchange, pattern)
        self.delays.prepare_exchange(link, exchange, key)

    def _send(self, batch: Sequence[Outgoing], answers: list[str]) -> list[str]:
        """Publish; what found no queue is sent once more after its queue was made."""
        answers[:] = self.publisher.send(batch, answers)
        lost = [index for index, answer in enumerate(answers) if answer.startswith("312")]
        again = [index for index in lost if self._made(batch[index])]
        if again:
            for index, answer in zip(again, self.publisher.send([batch[index] for index in again]), strict=True):
                answers[index] = answer
        return answers

    def _made(self, outgoing: Outgoing) -> bool:
        """See to it that what came back finds a queue now; False where that is not for us to make."""
        if outgoing.exchange.startswith("celery_delayed_"):
            self.delays.forget()
            return False
        if outgoing.exchange or not outgoing.routing_key:
            return False
        self._with_link(self._make, outgoing.routing_key)
        return True

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
        return consumer

    def _forget(self) -> None:
        """After a fork: consumers and their connections are the parent's."""
        consumers, self._consumers = self._consumers, {}
        self._pid, self._keeper, self._lock = os.getpid(), None, threading.Lock()
        for consumer in consumers.values():
            consumer.close()

    def _keep(self) -> None:
        """Look after the consuming connections while nobody leases."""
        pause = _SOON
        while not self._closed.wait(pause):
            pause = _SOON if any(not consumer.leasing for consumer in self._consumers.values()) else _LATER
            for consumer in list(self._consumers.values()):
                with suppress(OperationalError):
                    consumer.keep(time.monotonic())

    def wake(self) -> None:
        """End every lease that waits, or its next wait."""
        for consumer in list(self._consumers.values()):
            consumer.wake()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Return the tags that are not held any more; RabbitMQ itself remembers no tickets (`caps.remembers`)."""
        del now
        consumer = self._consumers.get(owner)
        if consumer is None:
            return [tag for tag, _, _ in tickets]
        stale = []
        for tag, token, _ticket in tickets:
            held = consumer.holds(tag, token)
            if held is None or not consumer.reachable(held):
                stale.append(tag)
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """True always: while the connection stands the leases do, and after a cut each one tells for itself."""
        del owner, seconds, now
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
        for item in settlements:
            held = consumer.holds(item.tag, item.token)
            if held is None:
                stale.append(item.tag)
            elif item.end is End.DONE:
                del consumer.held[item.tag]
                done.append(held)
            elif item.end is End.RELEASE and held.handed_out < OFTEN:
                del consumer.held[item.tag]
                back.append(held)
            else:
                copies.append((held, item))
        stale += [held.delivery.tag for held in consumer.finish(done)]
        stale += [held.delivery.tag for held in back if not consumer.reachable(held)]
        consumer.put_back(back)
        return stale + self._end_with_copies(consumer, copies, now)

    def _end_with_copies(self, consumer: Consumer, copies: Sequence[tuple[Held, Settlement]], now: float) -> list[Any]:
        """End leases whose message goes on elsewhere: stored there first, acknowledged then."""
        stale, batch, sent, buried = [], [], [], []
        for held, item in copies:
            if not consumer.reachable(held):
                del consumer.held[item.tag]
                stale.append(item.tag)
            elif item.end is End.DEAD:
                self._bury(held.delivery, item.reason, now)
                buried.append(held)
            else:
                batch.append(self._copy(held, item, now))
                sent.append(held)
        answers = self._send(batch, []) if batch else []
        stored = [held for held, answer in zip(sent, answers, strict=True) if not answer]
        refused = [held for held, answer in zip(sent, answers, strict=True) if answer]
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
        if due > now:
            extra[DUE] = float(due)
        seconds = 1 if round_trip else seconds_to_wait(due, now)
        content = write_content(delivery, now, extra, delayed=seconds > 0)
        exchange, key = "", delivery.queue
        if seconds:
            self._with_link(self._prepare_delay, key)
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
            if reason:
                with suppress(OperationalError):
                    self._bury(delivery, f"malformed message: {reason}", now)
                    ended.append(held)
                continue
            counts = {CRASHES: delivery.crashes, OFFERS: delivery.offers}
            batch.append(self._again(delivery, counts, due, now, round_trip=due == ROUND_TRIP))
            copied.append(held)
        answers = self._send(batch, []) if batch else []
        ended += [held for held, answer in zip(copied, answers, strict=True) if not answer]
        consumer.drop(ended)
        consumer.put_back([held for held, answer in zip(copied, answers, strict=True) if answer])

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
        self.pool.close()


def _declare_reply(link: Link, name: str, arguments: dict[str, Any]) -> None:
    with link.questions(f"declare the queue {name!r} for results") as channel:
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


def _delete(link: Link, name: str) -> None:
    with link.questions(f"delete the queue {name!r}") as channel:
        channel.queue_delete(name)


def _counts(message: Message) -> dict[str, Any] | None:
    """Return the headers with what is counted of a delivery that is published again; None for a plain message."""
    if not isinstance(message, Delivery):
        return None
    return {name: value for name, value in ((CRASHES, message.crashes), (OFFERS, message.offers)) if value}


def _count(channel: Any, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).message_count)


def _purge(channel: Any, name: str) -> int:
    return int(channel.queue_purge(name) or 0)


def _refusal(message: Message, answer: str, outgoing: Outgoing) -> Exception:
    if answer == NACKED:
        return OperationalError(
            f"task {message.task}: RabbitMQ did not store the message for {message.queue!r}: a queue is full "
            "(x-max-length with x-overflow=reject-publish) or cannot write; consume from it, or raise its limit"
        )
    where = f"exchange {outgoing.exchange!r}" if outgoing.exchange else "RabbitMQ"
    return Unroutable(
        f"task {message.task}: {where} has no queue bound for routing key {message.queue!r} ({answer}); declare the "
        "queue or correct the route"
    )
