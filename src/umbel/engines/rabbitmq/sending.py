"""Publishing on RabbitMQ: queues that are missing are made, delays go through the levels, refusals are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umbel.core.errors import EncodeError, OperationalError, PublishTimeout, Unroutable
from umbel.core.message import Delivery, Message
from umbel.core.queues import Queue
from umbel.core.routing import bound_queues
from umbel.core.task_ids import is_drawn
from umbel.engine.seam import Refusal
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.delays import Delays, delayed_route, seconds_to_wait, undelayed
from umbel.engines.rabbitmq.failures import LostConnection, MissingQueue
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.mapping import AGAIN, CRASHES, OFFERS, check_name, write_content
from umbel.engines.rabbitmq.publisher import NACKED, Blocked, Outgoing, Pool, Publisher
from umbel.engines.rabbitmq.repeats import Repeats
from umbel.engines.rabbitmq.topology import declare_queue, delete_queue, is_quorum, missing_queue

__all__ = ["Sending", "declare_reply"]


class Sending:
    """The publishing half of the broker."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.pool = Pool(location)
        self.publisher = Publisher(location, self.pool)
        self.delays = Delays(location.delay_queue_type)
        #: Queues as they were declared here, by name.
        self.known: dict[str, Queue] = {}
        self._exchanges: set[str] = set()
        self._repeats = Repeats(self.publisher)
        #: Queues for results that have to exist before anything more is published, and their arguments.
        self.reply_queues: dict[str, dict[str, Any]] = {}

    # --- topology --------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings exist."""
        self.known |= {queue.name: queue for queue in queues if not queue.no_declare or queue.name not in self.known}
        failures = []
        for queue in queues:
            try:
                self._with_link(declare_queue, queue)
            except LostConnection:
                raise
            except OperationalError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete queues with all that is in them."""
        for queue in queues:
            self.known.pop(queue.name, None)
            self._with_link(delete_queue, queue)

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
                self._expect_delays(link, self.known[name])
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

    def _expect_delays(self, link: Link, queue: Queue) -> None:
        """Let delayed messages come back: Celery's producers send those for quorum queues through the levels."""
        if is_quorum(queue) and not any(word in ("*", "#") for word in queue.name.split(".")):
            self.delays.prepare(link, queue.name)

    def close_senders(self) -> None:
        """Close the connections that publish."""
        self._repeats.close()
        self.pool.close()

    # --- publishing ------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages; return those that were refused. Returns when RabbitMQ has confirmed all others."""
        if self.reply_queues:
            self.declare_replies()
        refusals: list[Refusal] = []
        batch: list[Outgoing] = []
        places: list[int] = []
        stored = self._repeats.stored(messages)
        for index, message in enumerate(messages):
            if id(message) in stored:
                continue
            try:
                for outgoing in self._outgoing(message, now):
                    batch.append(outgoing)
                    places.append(index)
            except (EncodeError, Unroutable) as error:
                refusals.append(Refusal(index, error))
        try:
            answers = self._send_once([messages[index] for index in places], batch)
        except OperationalError:
            self._exchanges.clear()
            self.delays.forget()
            raise
        self._repeats.done(messages)
        for index, answer, outgoing in zip(places, answers, batch, strict=True):
            if answer:
                refusals.append(Refusal(index, _refusal(messages[index], answer, outgoing)))
        return sorted(refusals, key=lambda refusal: refusal.index)

    def declare_replies(self) -> None:
        """Make the queues exist that results are to be sent to."""
        for name, arguments in list(self.reply_queues.items()):
            self._with_link(declare_reply, name, arguments)
            self.reply_queues.pop(name, None)

    def _outgoing(self, message: Message, now: float) -> list[Outgoing]:
        exchange, key = message.exchange, message.queue
        check_name(exchange)
        check_name(key)
        if exchange and exchange not in self._exchanges:
            self._with_link(self._look_for_exchange, message)
        seconds = seconds_to_wait(message.due, now) if message.due else 0
        extra = _counts(message)
        doubtful = isinstance(message, Delivery) and message.doubtful
        if (doubtful or self._repeats.unsure(message)) and is_drawn(message.id):
            extra = {**(extra or {}), AGAIN: True}
        content = write_content(message, now, extra, delayed=seconds > 0)
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
            self._prepare_delay_of(key)
            return [delayed_route(key, seconds)]
        kinds = {name: kind for queue in self.known.values() for name, kind, _ in queue.routes()}
        if kinds.get(exchange, "direct") == "direct":
            # A direct exchange knows no key with digits in front: the queues are found here instead.
            names = bound_queues(self.known.values(), exchange, key)
            if not names:
                return [(exchange, key)]
            for name in names:
                self._prepare_delay_of(name)
            return [delayed_route(name, seconds) for name in names]
        self._with_link(self._prepare_exchange_delay, exchange, key)
        return [delayed_route(key, seconds)]

    def _prepare_delay_of(self, queue: str) -> None:
        if not self.delays.leads_to(queue):
            self._with_link(self._prepare_delay, queue)

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

    def _send_once(self, keys: Sequence[Any], batch: Sequence[Outgoing]) -> list[str]:
        """Publish what is made of the objects `keys`; if that fails, know what need not be sent when it is repeated."""
        answers: list[str] = []
        try:
            return self._send(batch, answers)
        except OperationalError as error:
            self._repeats.failed(keys, answers, error)
            raise

    def _send(self, batch: Sequence[Outgoing], answers: list[str]) -> list[str]:
        """Publish; what found no queue is sent once more after its queue was made."""
        answers[:] = self.publisher.send(batch, answers)
        lost = [index for index, answer in enumerate(answers) if answer.startswith("312")]
        again = [index for index in lost if self._made(batch[index])]
        try:
            for index, answer in zip(again, self.publisher.send([batch[index] for index in again]), strict=True):
                answers[index] = answer
        except Blocked as error:
            # Its answers are those of a part, and cannot be waited for as if they were the whole batch's.
            error.link.close()
            raise PublishTimeout(str(error)) from error
        return answers

    def _made(self, outgoing: Outgoing) -> bool:
        """See to it that what came back finds a queue now; False where that is not for us to make."""
        if outgoing.exchange.startswith("celery_delayed_"):
            # A level, or its tie to the queue, was deleted: make it again.
            self.delays.forget()
            self._prepare_delay_of(undelayed(outgoing.routing_key))
            return True
        if outgoing.exchange or not outgoing.routing_key:
            return False
        self._with_link(self._make, outgoing.routing_key)
        return True


def declare_reply(link: Link, name: str, arguments: dict[str, Any]) -> None:
    """Make a queue of results exist."""
    with link.questions(f"declare the queue {name!r} for results") as channel:
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


def _counts(message: Message) -> dict[str, Any] | None:
    """Return the headers with what is counted of a delivery that is published again; None for a plain message."""
    if not isinstance(message, Delivery):
        return None
    return {name: value for name, value in ((CRASHES, message.crashes), (OFFERS, message.offers)) if value}


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
