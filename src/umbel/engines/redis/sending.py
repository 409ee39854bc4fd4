"""Publishing: one LPUSH for each list, several in one round trip; what may have been stored already is looked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from umbel.core.errors import OperationalError
from umbel.core.message import Message
from umbel.engine.seam import Refusal
from umbel.engines.redis.connection import Client
from umbel.engines.redis.delivery_tags import delivery_tags
from umbel.engines.redis.envelopes import marked, pack, pack_push
from umbel.engines.redis.exchanges import Exchanges, unroutable
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.now import server_now
from umbel.engines.redis.scripts import PUBLISH
from umbel.engines.redis.wire import pack as pack_command

__all__ = ["Addressed", "Sending"]

#: How many envelopes and bytes one LPUSH carries at most, so that no command holds Redis up for long.
_MOST, _MOST_BYTES = 500, 1_000_000
#: How many messages of a batch are on their way before the next are packed (`Caps.step`).
_SLICE = 200
#: How many messages are remembered of which nobody knows whether they were stored, and how long (seconds): whoever
#: tries again does so within the deadline for publishing.
_REMEMBERED, _REMEMBERED_FOR = 20_000, 120.0


class Addressed(NamedTuple):
    """An envelope and the queue it goes to; `place` is where its message stands in the batch."""

    place: int
    queue: str
    list: bytes
    raw: bytes
    due: float


class Told(NamedTuple):
    """An envelope for the channel of a fanout exchange; `alone`: no queue of umbel's is bound there."""

    place: int
    channel: bytes
    raw: bytes
    alone: bool


class Sending:
    """The way in of one broker."""

    def __init__(self, client: Client, keys: Keys, exchanges: Exchanges) -> None:
        self._client = client
        self._keys = keys
        self._exchanges = exchanges
        self._lock = threading.Lock()
        #: Messages whose last publishing may or may not have been carried out, by identity: a caller that tries
        #: again comes with the same objects.
        self._unsure: dict[int, tuple[Message, list[Addressed], float]] = {}
        self._lists: dict[tuple[str, int], bytes] = {}
        self._text_from = client.location.text_from

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages; return those that no queue is bound for or that Redis would not take."""
        if not messages:
            return []
        if not self._unsure and not self._exchanges.expiring:
            if len(messages) > 1:
                batch = _by_list(messages, now)
                if batch is not None:
                    return self._publish_batch(messages, batch, now)
            elif not messages[0].exchange and messages[0].due <= now:
                self._publish_one(messages[0], now)
                return []
        refusals: list[Refusal] = []
        told: list[Told] = []
        addressed, again = self._address(messages, now, refusals, told)
        try:
            if again or any(item.due > now for item in addressed):
                refusals += self._scripted(addressed, again, now)
            else:
                refusals += self._plain(addressed)
            if told:
                refusals += self._tell(messages, told)
            if self._exchanges.expiring:
                self._exchanges.keep({item.queue for item in addressed})
        except OperationalError as error:
            if getattr(error, "maybe_done", True):
                self._remember(messages, addressed)
            raise
        if self._unsure:
            self._forget(messages)
        return sorted(refusals, key=lambda refusal: refusal.index)

    def _publish_one(self, message: Message, now: float) -> None:
        """The short way of most calls."""
        raw = self._pack(message, now)
        kept = (message.queue, message.priority)
        name = self._lists.get(kept)
        try:
            if name is None:
                name = self._keys.list_of(*kept)
                # The first message of this process for a queue makes the queue known.
                _first_error(self._client.pipeline(
                    [
                        ("LPUSH", self._keys.key(name), raw),
                        ("SADD", self._keys.key(b"umbel.queues"), message.queue),
                    ]
                ))  # fmt: skip
                self._keep_list(kept, name)
            else:
                self._client.call("LPUSH", self._keys.key(name), raw)
        except OperationalError as error:
            if getattr(error, "maybe_done", True):
                self._remember([message], [Addressed(0, message.queue, self._keys.list_of(*kept), raw, 0.0)])
            raise

    def _publish_batch(
        self, messages: Sequence[Message], batch: dict[tuple[str, int], list[int]], now: float
    ) -> list[Refusal]:
        """The short way of batches: Redis stores the first messages while the next are packed."""
        pushed: list[tuple[list[int], list[bytes]]] = []

        def commands() -> Iterator[bytes]:
            for kept, places in batch.items():
                key = self._keys.key(self._lists.get(kept) or self._keys.list_of(*kept))
                while places:
                    some = places[:_SLICE]
                    tags = delivery_tags(len(some))
                    next_ = [messages[place] for place in some]
                    command, count = pack_push(key, next_, tags, now, _MOST_BYTES, self._text_from)
                    pushed.append((some[:count], tags))
                    places = places[count:]
                    yield command
            if fresh:
                yield pack_command(("SADD", self._keys.key(b"umbel.queues"), *sorted({queue for queue, _ in fresh})))

        fresh = batch.keys() - self._lists.keys()
        try:
            answers = self._client.stream(commands())
        except OperationalError as error:
            if getattr(error, "maybe_done", True):
                self._remember(
                    messages, [item for some, tags in pushed for item in self._packed(messages, some, tags, now)]
                )
            raise
        for kept in fresh:
            self._keep_list(kept, self._keys.list_of(*kept))
        return _refused([places for places, _ in pushed], answers)

    def _packed(
        self, messages: Sequence[Message], places: Sequence[int], tags: Sequence[bytes], now: float
    ) -> Iterator[Addressed]:
        """What was sent of a batch, once more."""
        for place, tag in zip(places, tags, strict=False):
            message = messages[place]
            name = self._keys.list_of(message.queue, message.priority)
            yield Addressed(place, message.queue, name, self._pack(message, now, tag), 0.0)

    def _pack(self, message: Message, now: float, tag: bytes | None = None) -> bytes:
        return pack(message, now, None, tag, self._text_from)

    def _keep_list(self, kept: tuple[str, int], name: bytes) -> None:
        if len(self._lists) < 10_000:
            self._lists[kept] = name

    # --- addresses -----------------------------------------------------------------------------------------

    def _address(
        self, messages: Sequence[Message], now: float, refusals: list[Refusal], told: list[Told]
    ) -> tuple[list[Addressed], bool]:
        """Return where everything goes, and whether some of it may be stored already."""
        addressed: list[Addressed] = []
        again = False
        for index, message in enumerate(messages):
            known = self._unsure.get(id(message))
            if known is not None and known[0] is message:
                again = True
                addressed += [item._replace(place=index) for item in known[1]]
                continue
            queues, channel = self._exchanges.route(message)
            if channel:
                told.append(Told(index, channel, marked(self._pack(message, now)), alone=not queues))
            elif not queues:
                refusals.append(Refusal(index, unroutable(message)))
            addressed += [self.address(message, queue, now, index) for queue in queues]
        return addressed, again

    def address(self, message: Message, queue: str, now: float, index: int = 0) -> Addressed:
        """Return the envelope of a message for one queue."""
        due = message.due if message.due > now else 0.0
        return Addressed(index, queue, self.list_of(queue, message.priority), self._pack(message, now), due)

    def list_of(self, queue: str, priority: int) -> bytes:
        """Return the list (without prefix) of a queue's messages of a priority."""
        return self._lists.get((queue, priority)) or self._keys.list_of(queue, priority)

    def _remember(self, messages: Sequence[Message], addressed: Sequence[Addressed]) -> None:
        by_index: dict[int, list[Addressed]] = {}
        for item in addressed:
            by_index.setdefault(item.place, []).append(item)
        with self._lock:
            for index, items in by_index.items():
                self._unsure[id(messages[index])] = (messages[index], items, time.monotonic())
            while len(self._unsure) > _REMEMBERED:
                del self._unsure[next(iter(self._unsure))]

    def _forget(self, messages: Sequence[Message]) -> None:
        with self._lock:
            oldest = time.monotonic() - _REMEMBERED_FOR
            for place in [place for place, known in self._unsure.items() if known[2] < oldest]:
                del self._unsure[place]
            for message in messages:
                self._unsure.pop(id(message), None)

    # --- ways ----------------------------------------------------------------------------------------------

    def _plain(self, addressed: Sequence[Addressed]) -> list[Refusal]:
        by_list: dict[bytes, list[Addressed]] = {}
        for item in addressed:
            by_list.setdefault(item.list, []).append(item)
        pushes = [(name, chunk) for name, items in by_list.items() for chunk in _chunks(items)]
        commands: list[tuple[Any, ...]] = [
            ("LPUSH", self._keys.key(name), *[item.raw for item in chunk]) for name, chunk in pushes
        ]
        fresh = {item.queue for item in addressed if (item.queue, 0) not in self._lists}
        if fresh:
            commands.append(("SADD", self._keys.key(b"umbel.queues"), *sorted(fresh)))
        answers = self._client.pipeline(commands)
        for queue in fresh:
            self._keep_list((queue, 0), self._keys.list_of(queue))
        return _refused([[item.place for item in chunk] for _, chunk in pushes], answers)

    def _tell(self, messages: Sequence[Message], told: Sequence[Told]) -> list[Refusal]:
        """Publish on the channels of fanout exchanges, where Celery's workers listen; refuse what nobody gets."""
        refusals = []
        for item, answer in zip(
            told, self._client.pipeline([("PUBLISH", item.channel, item.raw) for item in told]), strict=True
        ):
            if isinstance(answer, Exception):
                raise answer
            if not answer and item.alone:
                refusals.append(Refusal(item.place, unroutable(messages[item.place])))
        return refusals

    def _scripted(self, addressed: Sequence[Addressed], again: bool, now: float) -> list[Refusal]:
        for chunk in _chunks(addressed):
            args: list[Any] = [server_now(now), "1" if again else "0"]
            for item in chunk:
                args += (item.list, item.queue, item.raw, repr(item.due) if item.due else "")
            self._client.script(PUBLISH, [self._keys.prefix], args)
        fresh = {item.queue for item in addressed if (item.queue, 0) not in self._lists}
        if fresh:
            self._client.call("SADD", self._keys.key(b"umbel.queues"), *sorted(fresh))
        for queue in fresh:
            self._keep_list((queue, 0), self._keys.list_of(queue))
        return []


def _by_list(messages: Sequence[Message], now: float) -> dict[tuple[str, int], list[int]] | None:
    """Return (queue, priority) → places of the messages for it; None unless each goes to its queue at once."""
    found: dict[tuple[str, int], list[int]] = {}
    last: tuple[str, int] = ("", -1)
    places: list[int] = []
    for place, message in enumerate(messages):
        if message.exchange or message.due > now:
            return None
        if message.queue != last[0] or message.priority != last[1]:
            last = (message.queue, message.priority)
            places = found.setdefault(last, [])
        places.append(place)
    return found


def _refused(pushes: Sequence[Sequence[int]], answers: Sequence[Any]) -> list[Refusal]:
    """Return what Redis would not take of several LPUSH, given the places of the messages of each; raises its error
    if that is everything.
    """
    failed = [answer for answer in answers[: len(pushes)] if isinstance(answer, Exception)]
    if failed and len(failed) == len(pushes):
        raise failed[0]
    return [
        Refusal(place, answer)
        for places, answer in zip(pushes, answers, strict=False)
        if isinstance(answer, Exception)
        for place in places
    ]


def _chunks(items: Sequence[Addressed]) -> list[list[Addressed]]:
    chunks: list[list[Addressed]] = []
    size = 0
    for item in items:
        if not chunks or len(chunks[-1]) >= _MOST or size + len(item.raw) > _MOST_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(item)
        size += len(item.raw)
    return chunks


def _first_error(answers: Sequence[Any]) -> None:
    if isinstance(answers[0], Exception):
        raise answers[0]
