"""One owner's leases: deliveries that RabbitMQ pushes to its connection and that it has not acknowledged yet."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.message import Delivery
from umbel.engine.seam import Lease
from umbel.engines.rabbitmq.connection import MESSAGES, Content, Link
from umbel.engines.rabbitmq.failures import LostConnection
from umbel.engines.rabbitmq.held import Held
from umbel.engines.rabbitmq.location import Location
from umbel.engines.rabbitmq.mapping import read_consumer, read_delivery
from umbel.engines.rabbitmq.recognition import Recognition
from umbel.engines.rabbitmq.subscriptions import Subscriptions

__all__ = ["Consumer"]

_DELIVER = b"\x00\x3c\x00\x3c"
_CANCELLED = b"\x00\x3c\x00\x1e"
_ack = Struct(">BHIHHQBB").pack
#: A message due within so many seconds waits here; one due later goes to the delay levels.
HOLD = 2.0
#: With wait=0: how long a message may be on its way (seconds), and how long when the queue says there are some.
_ON_THE_WAY, _ON_THE_WAY_SURELY = 0.005, 0.5
#: What was pushed and is not leased goes back after so many seconds.
HOSTAGE = 0.075

#: Quorum queues drop a message handed out x-delivery-limit times; from here it goes back as a copy, begun at 0.
OFTEN = 8
#: In the place of a due time: the copy comes back in a second, or at once.
ROUND_TRIP, AT_ONCE = -1.0, 0.0
_LOOK_AGAIN = 1.0  # seconds between two looks for queues that nobody has made yet


class Consumer:
    """The consuming connection of one owner. `lease` is called by one thread, everything else by any.

    `prepare` makes a queue exist before it is consumed from (False: there is none); `unfit` takes what cannot be
    leased as (held, reason, due): malformed, where there is a reason, or to be copied and put back.
    """

    _epochs = itertools.count(1)
    _tokens = itertools.count(time.time_ns() // 1_000_000)

    def __init__(
        self, location: Location, owner: str, prepare: Callable[[Link, str], bool], unfit: Callable[..., None]
    ) -> None:
        self._location = location
        self.owner = owner
        self._prepare, self._unfit = prepare, unfit
        self.lock = threading.RLock()
        self.link: Link | None = None
        self.epoch = 0
        self._inbox: deque[Content] = deque()
        #: Numbers of the deliveries that this connection has not answered yet, in order.
        self._open: dict[int, None] = {}
        self._buffer: deque[Held] = deque()
        self._waiting: list[tuple[float, int, Held]] = []
        self.held: dict[Any, Held] = {}
        self._subscriptions = Subscriptions()
        self._prepared: set[str] = set()
        self._looked: dict[str, float] = {}
        #: Some of the queues do not exist yet.
        self._missing = False
        self._recognition = Recognition()
        self._buffered_at = 0.0
        #: A lease call with room is under way.
        self.leasing = False
        self._woken = False
        self._pipe: tuple[int, ...] = os.pipe()
        for descriptor in self._pipe:
            os.set_blocking(descriptor, False)

    # --- leasing ---------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float) -> list[Delivery]:
        """Return up to `limit` deliveries; wait for one, a due time, `wake` or the end of the connection."""
        if lease.limit <= 0:
            return []
        began = time.monotonic()
        self.leasing = True
        try:
            fresh = self._ask(lease)
            grace = 0.0
            while True:
                elapsed = time.monotonic() - began
                self._take_in(now + elapsed, lease.without)
                taken = self._take(lease, now + elapsed)
                woken, self._woken = self._woken, False
                if taken or woken:
                    return taken
                if fresh and wait <= 0:
                    grace, fresh = elapsed + self._grace(lease.queues), False
                    continue
                left = max(wait, grace, _ON_THE_WAY) - elapsed
                if left <= 0:
                    return []
                if self._waiting:
                    left = min(left, max(0.0, self._waiting[0][0] - now - elapsed))
                self._wait(left)
                if self._missing or self._waiting:  # what waits here for its time takes up credit
                    self._ask(lease)
        finally:
            self.leasing = False

    def _ask(self, lease: Lease) -> bool:
        """See to it that enough is on its way; True when more was asked for just now."""
        with self.lock:
            link = self._connected()
            self._look_for(link, lease.queues)
            held = len(self.held) + len(self._waiting)
            names = [name for name in lease.queues if name in self._prepared]
            frames = self._subscriptions.ask(names, lease.limit - len(self._buffer), held)
            if frames:
                link.send(frames)
            return bool(frames)

    def _look_for(self, link: Link, queues: Sequence[str]) -> None:
        self._missing = False
        for name in queues:
            if name not in self._prepared:
                recently = time.monotonic() - self._looked.get(name, -_LOOK_AGAIN) < _LOOK_AGAIN
                if not recently:
                    self._looked[name] = time.monotonic()
                if not recently and self._prepare(link, name):
                    self._prepared.add(name)
                else:
                    self._missing = True

    def _grace(self, queues: Sequence[str]) -> float:
        """With wait=0: how long to look out for what was asked for just now."""
        with self.lock:
            for name in queues:
                with suppress(OperationalError), self._connected().questions("count messages") as channel:
                    if channel.queue_declare(name, passive=True).message_count:
                        return _ON_THE_WAY_SURELY
        return _ON_THE_WAY * 4

    def _wait(self, seconds: float) -> None:
        link = self.link
        if link is None or not link.usable:
            raise (link.failure if link is not None else None) or LostConnection("the connection to RabbitMQ was cut")
        with suppress(OSError, ValueError, IndexError):
            poll = select.poll()
            poll.register(link.descriptor, select.POLLIN)
            poll.register(self._pipe[0], select.POLLIN)
            # a second at most: heartbeats are looked after elsewhere, the end of the link shows here
            for descriptor, _event in poll.poll(max(0.0, min(seconds, 1.0)) * 1000):
                if descriptor == self._pipe[0]:
                    os.read(descriptor, 4096)
        with self.lock:
            if self.link is not None:
                self._received(self.link)

    def wake(self) -> None:
        """End the wait of `lease`, or its next one."""
        self._woken = True
        with suppress(OSError, IndexError):
            os.write(self._pipe[1], b"\0")

    # --- the connection --------------------------------------------------------------------------------------

    def _connected(self) -> Link:
        link = self.link
        if link is not None and link.usable:
            return link
        if link is not None:
            self._lose()
        link = Link(self._location, f"worker {self.owner}", heartbeat=self._location.heartbeat)
        link.lock = self.lock
        link.on_content = self._on_content
        link.on_method = self._on_method
        link.open()
        self.epoch = next(self._epochs)
        self.link = link
        return link

    def _on_content(self, method: bytes, content: Content) -> None:
        if method == _DELIVER:
            self._inbox.append(content)

    def _on_method(self, method: bytes, arguments: bytes) -> None:
        if method == _CANCELLED:
            name = self._subscriptions.ended(arguments[1 : 1 + arguments[0]])
            self._prepared.discard(name or "")

    def _received(self, link: Link) -> None:
        try:
            link.read()
        except OperationalError:
            self._lose()
            raise

    def _lose(self) -> None:
        """The connection is gone: what was not leased is not ours any more, what was may come again."""
        if self.link is not None:
            self.link.close()
            self.link = None
        self._inbox.clear()
        self._open.clear()
        self._buffer.clear()
        self._waiting.clear()
        self._subscriptions = Subscriptions()
        self._prepared.clear()
        self._looked.clear()
        self._recognition.cut({held.key: tag for tag, held in self.held.items()})

    # --- what arrives ----------------------------------------------------------------------------------------

    def _take_in(self, now: float, without: Sequence[str] = ()) -> None:
        """Sort what has arrived: ready, due soon, due later, malformed, known from before the connection was cut."""
        unfit: list[tuple[Held, str, float]] = []
        with self.lock:
            while self._inbox:
                content = self._inbox.popleft()
                source = self._subscriptions.arrived(read_consumer(content[0])[0])
                if source is None:
                    continue
                arrived = read_delivery(source.queue, content, self._location.accept_content)
                self._open[arrived.number] = None
                arrived.delivery.doubtful |= arrived.redelivered
                held = Held(arrived.delivery, arrived.number, source, self.epoch, arrived.handed_out)
                if arrived.reason:
                    unfit.append((held, arrived.reason, 0.0))
                elif arrived.redelivered and self._known(held):
                    continue
                elif arrived.delivery.task in without:
                    self._leave(held, arrived.redelivered, unfit)
                elif arrived.delivery.due > now + HOLD:
                    unfit.append((held, "", arrived.delivery.due))
                elif arrived.delivery.due > now:
                    heapq.heappush(self._waiting, (arrived.delivery.due, held.number, held))
                else:
                    if not self._buffer:
                        self._buffered_at = time.monotonic()
                    self._buffer.append(held)
        self._hand_over(unfit, now)

    def _hand_over(self, unfit: Sequence[tuple[Held, str, float]], now: float) -> None:
        try:
            if unfit:
                self._unfit(self, unfit, now)
        except BaseException:
            self.put_back([held for held, _, _ in unfit])
            raise

    def _leave(self, held: Held, redelivered: bool, unfit: list[tuple[Held, str, float]]) -> None:
        """Leave a message to other consumers: it goes to the next one, or, having been round, comes in a second."""
        if redelivered:
            unfit.append((held, "", ROUND_TRIP))
        else:
            self._answer([held], requeue=True)

    def _known(self, held: Held) -> bool:
        key = held.key
        tag = self._recognition.still_running(key)
        known = self.held.get(tag) if tag is not None else None
        if known is not None:
            known.number, known.source, known.epoch = held.number, held.source, held.epoch
            return True
        if self._recognition.has_finished(key):
            self._answer([held], requeue=None)
            return True
        return False

    def _take(self, lease: Lease, now: float) -> list[Delivery]:
        taken: list[Delivery] = []
        with self.lock:
            while self._waiting and self._waiting[0][0] <= now:
                self._buffer.append(heapq.heappop(self._waiting)[2])
            asked = set(lease.queues)
            for _ in range(len(self._buffer)):
                if len(taken) >= lease.limit:
                    break
                held = self._buffer.popleft()
                if held.source.queue not in asked or held.delivery.task in lease.without:
                    self._buffer.append(held)
                    continue
                held.token = next(self._tokens)
                delivery = held.delivery
                delivery.token = held.token
                delivery.tag = (held.epoch, held.number)
                self.held[delivery.tag] = held
                taken.append(delivery)
            if taken:
                self._buffered_at = time.monotonic()
        return taken

    # --- ends ------------------------------------------------------------------------------------------------

    def holds(self, tag: Any, token: int) -> Held | None:
        """Return the leased delivery, or None when it is not leased with this token."""
        held = self.held.get(tag)
        return held if held is not None and held.token == token else None

    @property
    def answerable(self) -> int:
        """The epoch of the deliveries that can still be answered: those of the connection that is open; 0 for none."""
        return self.epoch if self.link is not None and self.link.usable else 0

    def finish(self, ended: Sequence[Held]) -> list[Held]:
        """Acknowledge for good; what could not be is returned, and acknowledged when it comes here again."""
        with self.lock:
            answered = self._answer(ended, requeue=None)
            self._recognition.acknowledged([held.key for held in ended if id(held) in answered])
            left = [held for held in ended if id(held) not in answered]
            for held in left:
                self._recognition.unanswered(held.key)
            return left

    def put_back(self, ended: Sequence[Held]) -> None:
        """Give deliveries back to the front of their queue (those of a lost connection are there already)."""
        self._answer(ended, requeue=True)

    def drop(self, ended: Sequence[Held]) -> None:
        """Acknowledge deliveries of which a copy is stored elsewhere."""
        self._answer(ended, requeue=None)

    def _answer(self, batch: Sequence[Held], *, requeue: bool | None) -> set[int]:
        with self.lock:
            epoch, link = self.answerable, self.link
            batch = [held for held in batch if held.epoch == epoch]
            return self._write_answers(link, batch, requeue) if batch and link is not None else set()

    def _write_answers(self, link: Link, batch: list[Held], requeue: bool | None) -> set[int]:
        """Write acknowledgements (or, with `requeue`, refusals), many in one where numbers follow each other."""
        method, bits = (80, 0) if requeue is None else (120, 2)
        ending = {held.number for held in batch}
        together = list(itertools.takewhile(ending.__contains__, self._open))
        frames = []
        if len(together) > 1:
            frames.append(_ack(1, MESSAGES, 13, 60, method, together[-1], bits | 1, 0xCE))
            ending.difference_update(together)
        frames += [_ack(1, MESSAGES, 13, 60, method, number, bits, 0xCE) for number in sorted(ending)]
        try:
            link.send(b"".join(frames))
        except OperationalError:
            return set()
        for held in batch:
            self._open.pop(held.number, None)
            self._subscriptions.gone(held.source)
        return {id(held) for held in batch}

    # --- looked after by the keeper --------------------------------------------------------------------------

    def keep(self, now: float) -> bool:
        """Beat, read, and give back what nobody has leased in time; False when there is nothing to look after."""
        with self.lock:
            if self.link is None:
                return False
            self.link.beat(now)
            if self.leasing:
                return True
            with suppress(OperationalError):
                self._received(self.link)
        with suppress(OperationalError):
            self._take_in(time.time())
        self._give_up_surplus(now)
        return True

    def _give_up_surplus(self, now: float) -> None:
        with self.lock:
            if self.leasing or self.link is None or not self._buffer or now - self._buffered_at < HOSTAGE:
                return
            with suppress(OperationalError):
                self.link.send(self._subscriptions.stop())
            surplus, self._buffer = list(self._buffer), deque()
            self._answer([held for held in surplus if held.handed_out < OFTEN], requeue=True)
        with suppress(OperationalError):
            self._hand_over([(held, "", AT_ONCE) for held in surplus if held.handed_out >= OFTEN], time.time())

    def close(self) -> None:
        """Close the connection; what is leased goes back to its queues."""
        with self.lock:
            self.held.clear()
            self.abandon()

    def abandon(self) -> None:
        """Let go of the descriptors without a word: for a connection of this process' parent."""
        if self.link is not None:
            self.link.close()
            self.link = None
        descriptors, self._pipe = self._pipe, ()
        for descriptor in descriptors:
            os.close(descriptor)
