"""Dead letters on RabbitMQ: a durable queue, looked through by one reader at a time who puts everything back.

A letter is one message: what it keeps is packed in its body, and told in its headers to whoever looks with other tools.
Looking takes the queue once from its head: letters that are not wanted are not kept in memory, and whatever was not
removed stands in its old place afterwards, however the reader ends.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from umbel.core.errors import OperationalError
from umbel.core.message import DeadLetter, Delivery, Message
from umbel.engine.seam import Refusal
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.inbox import Inbox
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.publisher import NACKED, Outgoing, Pool, Publisher
from umbel.engines.rabbitmq.tables import write_properties

__all__ = ["QUEUE", "RabbitDead"]

QUEUE = "umbel.dead"
_READER = "umbel.dead.reader"
#: Seconds that a reader waits for another one to finish, and between two tries.
_TURN, _PAUSE = 30.0, 0.1
#: Seconds without a letter after which the queue is asked whether there are more.
_LULL = 0.01
_LARGEST = 2**63 - 1
_TYPE = "application/x-umbel-dead-letter"

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(DeadLetter).decode

_Wanted = Callable[[DeadLetter], bool]


class RabbitDead:
    """DeadLetters of `umbel.engine.seam` in the queue `umbel.dead` of one vhost."""

    def __init__(
        self,
        location: Location,
        pool: Pool,
        publisher: Publisher,
        publish: Callable[[Sequence[Message], float], list[Refusal]],
    ) -> None:
        self._location = location
        self._pool = pool
        self._publisher = publisher
        self._publish = publish
        self._lock = threading.Lock()
        self._last = 0

    def _number(self) -> int:
        """Return a number above every one given here: the time in microseconds, so that it is above others' too."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    # --- in ------------------------------------------------------------------------------------------------

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message among the dead; on return it is stored. The crash count of a Delivery is kept."""
        crashes = message.crashes if isinstance(message, Delivery) else 0
        letter = DeadLetter(self._number(), _plain(message), _printable(reason), now, crashes)
        headers = {
            "umbel-reason": letter.reason[:1000],
            "umbel-queue": letter.message.queue,
            "task": letter.message.task,
            "id": letter.message.id,
            "umbel-number": letter.number,
        }
        properties = write_properties(headers, {"delivery_mode": 2}, _TYPE, "binary")
        outgoing = [Outgoing("", QUEUE, properties, _pack(letter))]
        (answer,) = self._publisher.send(outgoing)
        if answer.startswith("312"):
            self._declare()
            (answer,) = self._publisher.send(outgoing)
        if answer:
            text = "the queue is full" if answer == NACKED else answer
            raise OperationalError(f"RabbitMQ did not store a dead letter in the queue {QUEUE!r}: {text}")

    def _declare(self) -> None:
        link, confirms = self._pool.take()
        try:
            _declare(link)
        finally:
            self._pool.give(link, confirms)

    # --- looking and clearing --------------------------------------------------------------------------------

    def browse(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters with a number above `after`, oldest first."""
        if limit <= 0:
            return []
        return self._go_through(lambda letter: letter.number > after, limit=limit)

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or ids; both None means all."""
        if numbers is None and ids is None:
            return self._go_through(lambda _: True)
        by_number, by_id = frozenset(numbers or ()), frozenset(ids or ())
        if not by_number and not by_id:
            return []
        return self._go_through(lambda letter: letter.number in by_number or letter.message.id in by_id)

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Send letters again; return how many. What cannot be routed stays among the dead."""
        wanted = frozenset(numbers)

        def send(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
            refused = {refusal.index for refusal in self._publish([letter.message for letter in letters], now)}
            return [letter for index, letter in enumerate(letters) if index not in refused]

        return len(self._go_through(lambda letter: letter.number in wanted, remove=send)) if wanted else 0

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters for good; return how many."""
        wanted = frozenset(numbers)
        return len(self._go_through(lambda letter: letter.number in wanted, remove=list)) if wanted else 0

    def _go_through(
        self,
        wanted: _Wanted,
        *,
        limit: int | None = None,
        remove: Callable[[Sequence[DeadLetter]], list[DeadLetter]] | None = None,
    ) -> list[DeadLetter]:
        """Return the wanted letters, oldest first; with `remove` those that it returned, which are gone then."""
        inbox = Inbox(self._location, "dead letters", _declare)
        try:
            link, tag = self._take_turn(inbox)
            found = self._read(inbox, link, wanted, limit)
            letters = sorted((letter for letter, _ in found), key=lambda letter: letter.number)
            if remove is not None and letters:
                letters = remove(letters)
                gone = {letter.number for letter in letters}
                with inbox.asking(link, "remove dead letters") as channel:
                    for letter, delivery in found:
                        if letter.number in gone:
                            channel.basic_ack(delivery)
            with inbox.asking(link, "put dead letters back") as channel:
                channel.basic_cancel(tag)
                # The answer comes after the queue was told; only then is it the turn of the next reader.
                channel.basic_recover(requeue=True)
            return letters
        finally:
            inbox.close()

    def _take_turn(self, inbox: Inbox) -> tuple[Link, str]:
        until = time.monotonic() + _TURN
        while True:
            link = inbox.open()
            try:
                _lock(link)
            except OperationalError as error:
                # The queue is being looked through by somebody else: one at a time sees it whole.
                if "RESOURCE_LOCKED" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
            else:
                return link, inbox.consume(link, QUEUE, no_ack=False)

    def _read(self, inbox: Inbox, link: Link, wanted: _Wanted, limit: int | None) -> list[tuple[DeadLetter, int]]:
        """Read from the head of the queue to its end, or until `limit` letters are found."""
        found: list[tuple[DeadLetter, int]] = []
        until = time.monotonic() + self._location.read_timeout
        at_end = False
        while not at_end and (limit is None or len(found) < limit):
            arrived = inbox.receive(_LULL)
            if not arrived:
                # With nothing left in the queue, what it has sent stands before the answer to a later question.
                at_end = _count(link) == 0
                with inbox.asking(link, "look through dead letters") as channel:
                    channel.basic_qos(0, 0, False)
                arrived = inbox.receive(0.0)
            if arrived:
                until = time.monotonic() + self._location.read_timeout
            elif not at_end and time.monotonic() > until:
                raise OperationalError(f"RabbitMQ has dead letters in the queue {QUEUE!r} and does not send them")
            for item in arrived:
                letter = _read(item.body)
                if letter is not None and wanted(letter):
                    found.append((letter, item.number))
        return found if limit is None else found[:limit]


def _declare(link: Link) -> None:
    with link.questions(f"declare the queue {QUEUE!r}") as channel:
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)


def _lock(link: Link) -> None:
    """Make the queue that stands for the right to read; it belongs to this connection alone and goes with it."""
    with link.questions("look through the dead letters, which somebody else does now") as channel:
        channel.queue_declare(_READER, exclusive=True, auto_delete=False, durable=False)


def _count(link: Link) -> int:
    """Return how many letters the queue has not sent to its reader yet."""
    with link.questions(f"count the messages of {QUEUE!r}") as channel:
        return int(channel.queue_declare(QUEUE, passive=True).message_count)


def _read(body: bytes) -> DeadLetter | None:
    """Return a letter; None for what somebody else has put into the queue, which is left alone."""
    try:
        return _unpack(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _plain(message: Message) -> Message:
    return Message(
        _printable(message.id),
        _printable(message.task),
        _printable(message.queue),
        message.head,
        message.body,
        exchange=_printable(message.exchange),
        priority=max(-_LARGEST, min(message.priority, _LARGEST)),
        expires=0.0 if math.isnan(message.expires) else message.expires,
        generation=max(-_LARGEST, min(message.generation, _LARGEST)),
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
