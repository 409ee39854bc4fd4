"""Leases: taking, putting away what is not due, marking starts, extending and taking over."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.head import Quarantined
from umbel.core.message import Delivery
from umbel.core.queues import COPY_UNUSED
from umbel.engine.seam import Lease
from umbel.engines.redis.ahead import Ahead, Answer
from umbel.engines.redis.connection import Client
from umbel.engines.redis.dead import letter_of_raw
from umbel.engines.redis.envelopes import Tag, deliver
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.now import server_now
from umbel.engines.redis.scripts import COMMIT, EXTEND, LEASE, RECOVER, SCHEDULED, START
from umbel.engines.redis.store import Revocations
from umbel.engines.redis.waiting import LONGEST_BLOCK, Place

__all__ = ["Leasing"]

#: The most messages that one call takes.
_MOST = 1000
#: A message of so many bytes is a large one; how many and how many bytes of such ones are taken at once.
_LARGE, _MOST_LARGE, _MOST_LARGE_BYTES = 32_768, 64, 8_388_608
#: From so many messages on others are on their way while a caller deals with them.
_MANY = 32
#: For how long it counts that nothing was revoked when messages were sent on their way (seconds).
_FRESH = 0.05
#: How long an owner that holds nothing is remembered after its lease has lapsed (seconds).
_KEEP = LONGEST_BLOCK + 570.0
#: When a message that is left to others comes back (seconds).
_ROUND = 0.5


class Calls:
    """Numbers of calls that take something: one whose reply was lost is repeated under its number."""

    def __init__(self) -> None:
        self._name = os.urandom(6).hex()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        #: Owner → the number of its last call, if nobody knows what became of that.
        self._unsure: dict[str, str] = {}

    def begin(self, owner: str) -> tuple[str, str]:
        """Return (number, "1" if it is a repeat)."""
        with self._lock:
            known = self._unsure.get(owner)
            return (known, "1") if known else (f"{self._name}.{next(self._numbers)}", "0")

    def failed(self, owner: str, number: str) -> None:
        """Remember a call that may have been carried out."""
        with self._lock:
            self._unsure[owner] = number

    def ended(self, owner: str) -> None:
        """Forget a call: its reply has come."""
        if self._unsure:
            with self._lock:
                self._unsure.pop(owner, None)


class Leasing:
    """The leases of one broker."""

    def __init__(self, client: Client, keys: Keys, revocations: Revocations) -> None:
        self._client = client
        self._keys = keys
        self._both = [keys.prefix, client.result_prefix]
        self._revocations = revocations
        self._calls = {kind: Calls() for kind in ("lease", "recover")}
        self._accept = client.location.accept_content
        self._turn = 0
        #: How many messages to take as large ones, by what came last; 0: none.
        self._large = 0
        self._ahead_of = Ahead(client, keys)
        #: Owner → the number of a call whose messages are on their way, what waits for them, and since when they are.
        self._ahead: dict[str, tuple[str, Answer, float]] = {}
        #: Owner → messages that were to be on their way and came at once.
        self._early: dict[str, list[Delivery]] = {}
        self._pid = os.getpid()
        #: Owner → (its queues, until when they are known at the server).
        self._registered: dict[str, tuple[tuple[str, ...], float]] = {}
        self._queue_of: dict[bytes, str] = {}

    # --- taking --------------------------------------------------------------------------------------------

    def take(
        self, lease: Lease, now: float, place: Place, *, keep: bool = False, ahead: bool = False
    ) -> list[Delivery]:
        """Take what is ready, and note until when nothing else is.

        With `keep` the connections that wait go on doing so, and only the lists of the others are looked at. With
        `ahead` they are left on their way, for `arrived`.
        """
        number, again = self._calls["lease"].begin(lease.owner)
        place.quiet_until = 0.0
        try:
            if ahead and not self._large and again == "0":
                args = self._arguments(lease, now, place.staged, number, again)
                self._ahead[lease.owner] = (number, self._ahead_of.ask(LEASE, self._both, args), time.monotonic())
                return []
            answer = self._ask(lease, now, place, number, again, keep=keep and again == "0")
            if answer[3] == 2:
                move = self._ahead_of.move(lease.owner, number, answer)
                if ahead:
                    self._ahead[lease.owner] = (number, move, time.monotonic())
                    return []
                answer = self._moved(move)
            return self._taken(lease, now, place, number, answer)
        except OperationalError:
            self._failed(lease, number, place)
            raise

    def _taken(self, lease: Lease, now: float, place: Place, number: str, answer: Any) -> list[Delivery]:
        """Return the messages of an answer."""
        self._revocations.saw(bool(answer[4]))
        server, taken = float(answer[0]), self._deliveries(answer, lease.encoded)
        deliveries = self._sift(lease, taken, now, server)
        self._calls["lease"].ended(lease.owner)
        # Was some of it put away, what is due next is known after another look.
        if answer[5] and len(deliveries) == len(taken):
            due = float(answer[1]) - server if answer[1] else math.inf
            place.queues, place.quiet_until = lease.queues, time.monotonic() + due
        return deliveries

    def take_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Take what is not due yet. Should the answer be lost it comes back with the lease that nobody keeps alive."""
        places = self._keys.lists_of(lease.queues)
        self._queue_of.update((name, queue) for queue, name in places)
        args = [lease.owner, server_now(now), repr(float(lease.seconds)), lease.limit, *[name for _, name in places]]
        entries = self._client.script(SCHEDULED, [self._keys.prefix], args)
        return self._sift(lease, self._deliveries([0, 0, entries, 0], lease.encoded), now, math.inf)

    def _failed(self, lease: Lease, number: str, place: Place) -> None:
        # Taken or not: the next call under this number returns what is held of it.
        self._calls["lease"].failed(lease.owner, number)
        self._registered.pop(lease.owner, None)
        place.drop()

    @property
    def moves_large(self) -> bool:
        """Whether the next messages are expected to be large."""
        return self._large > 0

    def at_first(self, lease: Lease) -> int:
        """Return how many messages to take before others are on their way."""
        return lease.limit // 2 if lease.again and lease.encoded and lease.limit >= 2 * _MANY else lease.limit

    def goes_ahead(self, lease: Lease, taken: int, place: Place) -> bool:
        """Tell whether it pays to have the next messages on their way while the caller deals with so many."""
        if not (lease.again and lease.encoded and 0 < taken < lease.limit):
            return False
        return taken >= self._large if self._large else taken >= _MANY and not place.quiet_until and not place.armed

    def go_ahead(self, lease: Lease, now: float, place: Place) -> None:
        """Have messages on their way, for `arrived`."""
        taken = self.take(lease, now, place, ahead=True)
        if taken:
            self._early[lease.owner] = taken

    def arrived(self, lease: Lease, now: float, place: Place) -> list[Delivery]:
        """Return the messages that were on their way to this owner."""
        if lease.owner not in self._ahead:
            return self._early.pop(lease.owner, [])
        number, move, since = self._ahead.pop(lease.owner)
        try:
            answer = self._moved(move)
            if answer[3] == 2:
                answer = self._moved(self._ahead_of.move(lease.owner, number, answer))
            if time.monotonic() - since > _FRESH:
                # Something may have been revoked meanwhile.
                answer[4] = 1
            return self._taken(lease, now, place, number, answer)
        except OperationalError:
            self._failed(lease, number, place)
            raise

    def _moved(self, move: Answer) -> Any:
        answer = move()
        if not answer[2]:
            # Scripts may still take some.
            self._large = 0
        return answer

    def _ask(self, lease: Lease, now: float, place: Place, number: str, again: str, *, keep: bool) -> Any:
        if keep:
            lists = place.idle([name for _, name in self._keys.lists_of(lease.queues)])
            return self._client.script(LEASE, self._both, self._arguments(lease, now, True, number, again, lists))
        answer, late = self._send(lease, now, place, number, again)
        if late:
            # Something may have been staged since: it goes back to its list, nothing more is taken.
            args = self._arguments(lease._replace(limit=0), now, True, number, "0")
            self._client.script(LEASE, self._both, args)
        return answer

    def _send(self, lease: Lease, now: float, place: Place, number: str, again: str) -> tuple[Any, bool]:
        args = self._arguments(lease, now, place.staged, number, again)
        unblock = place.unblock()
        if not unblock:
            return self._client.script(LEASE, self._both, args), False
        *ended, answer = self._client.pipeline([*unblock, LEASE.command(self._both, args)])
        late = place.disarmed(ended)
        if getattr(answer, "code", "") == "NOSCRIPT":
            return self._client.script(LEASE, self._both, args), False
        if isinstance(answer, Exception):
            raise answer
        return answer, late

    def _arguments(
        self, lease: Lease, now: float, drain: bool, number: str, again: str, only: Collection[bytes] | None = None
    ) -> list[Any]:
        queues = lease.queues
        if len(queues) > 1:
            self._turn += 1
            first = self._turn % len(queues)
            queues = queues[first:] + queues[:first]
        limit = max(0, min(lease.limit, _MOST))
        args: list[Any] = [
            lease.owner,
            server_now(now),
            repr(float(lease.seconds)),
            limit,
            number,
            again,
            self._register(lease),
            "1" if drain else "0",
            self._large,
            len(queues),
            *queues,
            math.ceil(limit / len(queues)) if queues else 0,
        ]
        places = {queue: index for index, queue in enumerate(queues)}
        for queue, name in self._keys.lists_of(queues):
            self._queue_of[name] = queue
            if only is None or name in only:
                args += (name, places[queue])
        return args

    def _register(self, lease: Lease) -> str:
        """Say whether owner and queues are to be written down at the server with this call."""
        queues, until = self._registered.get(lease.owner, ((), 0.0))
        now = time.monotonic()
        if now < until and set(lease.queues) <= set(queues):
            return "0"
        self._pid = os.getpid()
        self._registered[lease.owner] = (lease.queues, now + lease.seconds / 3)
        return "1"

    def _deliveries(self, answer: Any, encoded: bool) -> list[Delivery | tuple[Tag, bytes, str]]:
        """Return the deliveries, and (tag, envelope, reason) of what is none."""
        if answer[3]:
            return [self._deliver(raw, name, int(number), note, encoded) for name, number, raw, note in answer[2]]
        found = []
        for name, first, *raws in answer[2]:
            found += [self._deliver(raw, name, number, b"", encoded) for number, raw in enumerate(raws, int(first))]
            size = len(raws[0])
            self._large = min(_MOST_LARGE, _MOST_LARGE_BYTES // size + 1) if size >= _LARGE else 0
        return found

    def _deliver(
        self, raw: bytes, name: bytes, number: int, note: bytes, encoded: bool
    ) -> Delivery | tuple[Tag, bytes, str]:
        queue = self._queue_of.get(name)
        if queue is None:
            queue = self._queue_of[name] = self._keys.queue_of(name)
        delivery = deliver(raw, queue, number, name, note, self._accept, encoded=encoded)
        if isinstance(delivery, Quarantined):
            return Tag(number, name, 0), raw, delivery.reason
        return delivery

    def _sift(
        self, lease: Lease, taken: list[Delivery | tuple[Tag, bytes, str]], now: float, server: float
    ) -> list[Delivery]:
        """Put away what is not due or is left to others, bury what is no message; return the rest."""
        good: list[Delivery] = []
        away: list[Any] = []
        for item in taken:
            if isinstance(item, tuple):
                tag, raw, reason = item
                letter = letter_of_raw(raw, self._queue_of[tag.list], reason, now)
                away += (tag.list, tag.number, 2, "dead", letter)
            elif item.due > server and not item.ticket:
                away += (item.tag.list, item.tag.number, 2, "park", repr(item.due))
            elif lease.without and item.task in lease.without:
                away += (item.tag.list, item.tag.number, 2, "park", repr(server + _ROUND))
            else:
                good.append(item)
        if away:
            self._client.script(COMMIT, self._both, [lease.owner, "", *away])
        return good

    # --- keeping -------------------------------------------------------------------------------------------

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]]) -> list[Any]:
        """Write tickets; return the tags that the owner does not hold any more."""
        stale: list[Any] = []
        args: list[Any] = [owner]
        tags: dict[bytes, Any] = {}
        for tag, token, ticket in tickets:
            if not isinstance(tag, Tag) or tag.token != token:
                stale.append(tag)
                continue
            tags[b"%d" % tag.number] = tag
            args += (tag.list, tag.number, b"%d %d " % (tag.bumps, ticket))
        if tags:
            stale += [tags[number] for number in self._client.script(START, [self._keys.prefix], args)]
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep the leases of `owner`; False, once, when messages have been taken from it."""
        args = [owner, repr(float(seconds)), server_now(now), repr(COPY_UNUSED), *self.queues_of(owner)]
        return not self._client.script(EXTEND, [self._keys.prefix], args)

    def queues_of(self, owner: str) -> tuple[str, ...]:
        """Return the queues that an owner of this process reads."""
        return self._registered.get(owner, ((), 0.0))[0]

    def leave(self) -> None:
        """Say that the owners of this process read no queue any more: delays are left to other workers from now on."""
        self._ahead_of.close()
        registered, self._registered = self._registered, {}
        commands = [
            ("ZREM", self._keys.key(b"umbel.consumers." + queue.encode()), owner)
            for owner, (queues, _) in registered.items()
            for queue in queues
        ]
        if commands and self._pid == os.getpid():
            with contextlib.suppress(OperationalError):
                self._client.pipeline(commands)

    # --- taking over ---------------------------------------------------------------------------------------

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over from owners whose deadline has passed or that are known to be dead."""
        number, again = self._calls["recover"].begin(lease.owner)
        lists = [name for _, name in self._keys.lists_of(lease.queues)]
        args = [
            lease.owner,
            server_now(now),
            repr(float(lease.seconds)),
            min(lease.limit, _MOST),
            number,
            again,
            repr(_KEEP),
        ]
        args += [len(lease.dead), *lease.dead, len(lists), *lists]
        try:
            server, found = self._client.script(RECOVER, [self._keys.prefix], args)
            taken = [self._deliver(raw, name, int(number), note, lease.encoded) for name, number, raw, note in found]
            # Among it may be what a dead owner had not looked at yet: not due, or no message.
            kept = self._sift(lease._replace(without=()), taken, now, float(server))
        except OperationalError:
            self._calls["recover"].failed(lease.owner, number)
            raise
        self._calls["recover"].ended(lease.owner)
        return kept
