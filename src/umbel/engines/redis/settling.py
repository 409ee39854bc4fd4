"""Settlements: the end of a lease and everything that comes of it, as one step; of a stale one nothing is applied."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.head import Quarantined
from umbel.core.message import End, Message, Part, Settlement, joinable, pack_message
from umbel.core.states import READY_STATES
from umbel.engines.redis.connection import Client
from umbel.engines.redis.dead import letter_of, letter_of_raw
from umbel.engines.redis.envelopes import Counts, Tag, deliver, marked, read_counts, repack
from umbel.engines.redis.exchanges import Exchanges, unroutable
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import COMMIT
from umbel.engines.redis.sending import Sending
from umbel.engines.redis.store import record_words

__all__ = ["Settling"]

#: The most arguments and bytes of one script call; what is more goes into the next one.
_MOST_ARGUMENTS, _MOST_BYTES = 20_000, 8_000_000
#: Of how many groups is remembered that the store has their body, and for how many seconds: it keeps it for a day.
_MOST_KEPT, _KEPT_FOR = 1000, 3600.0


class _Body:
    """What publishes the body of a group; parts that share the message share this, so that it is sent once a call."""

    __slots__ = ("effects", "packed")

    def __init__(self, effects: list[Any], packed: bytes) -> None:
        self.effects = effects
        #: The message for the store, unless it has it.
        self.packed = packed


_Effects = Callable[[Settlement, float], list[Any]]
#: Stands for no effects.
_NOTHING = -1
#: A settlement and its effects; see `Settling._arguments`.
_Item = tuple[Settlement, list[Any] | int]


class Settling:
    """The ends of leases of one broker."""

    def __init__(self, client: Client, keys: Keys, sending: Sending, exchanges: Exchanges) -> None:
        self._client = client
        self._keys = keys
        self._sending = sending
        self._exchanges = exchanges
        self._name = os.urandom(6).hex()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        #: Owner → its last call and that call's tags, if nobody knows whether it was carried out.
        self._unsure: dict[str, tuple[str, frozenset[Tag]]] = {}
        #: Owner → what a series of calls had settled before one of them failed: tag → whether it was stale.
        self._done: dict[str, dict[Any, bool]] = {}
        #: The bodies of the call that is being made.
        self._bodies: dict[tuple[str, str], _Body] = {}
        #: Group → when the store was given its body.
        self._kept: dict[str, float] = {}

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases; return the tags that were stale."""
        return self._apply(owner, settlements, now, None)

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """Apply record, follow-ups, parts and end of lease of each settlement; return the tags that were stale."""
        return self._apply(owner, settlements, now, self._effects)

    # --- calls ---------------------------------------------------------------------------------------------

    def _apply(self, owner: str, settlements: Sequence[Settlement], now: float, effects: _Effects | None) -> list[Any]:
        with self._lock:
            done = self._look_back(owner)
            stale, fresh = list[Any](), list[Settlement]()
            for settlement in settlements:
                tag = settlement.tag
                if done and tag in done:
                    # Carried out by the call whose reply was lost.
                    stale += [tag] if done[tag] else []
                elif isinstance(tag, Tag) and tag.token == settlement.token:
                    fresh.append(settlement)
                else:
                    stale.append(tag)
            raws = self._raws(owner, fresh)
            self._bodies.clear()
            for batch in _batches((item, self._arguments(item, raws, now, effects)) for item in fresh):
                answer = self._call(owner, batch)
                stale += answer
                if len(batch) < len(fresh):
                    self._done.setdefault(owner, {}).update((item.tag, item.tag in answer) for item, _ in batch)
            self._done.pop(owner, None)
            return stale

    def _arguments(
        self, settlement: Settlement, raws: dict[Tag, bytes], now: float, effects: _Effects | None
    ) -> list[Any] | int:
        """Return the effects; where a final result is all, only for how many seconds it is kept (0: for ever).

        _NOTHING where there is none at all.
        """
        record = settlement.record if effects is not None else None
        if settlement.end is End.DONE and not (settlement.publish or settlement.parts or settlement.tag.adopted):
            if record is None:
                return _NOTHING
            if record.state in READY_STATES:
                return max(math.ceil(record.expires - now), 1) if record.expires else 0
        end = self._end(settlement, raws, now)
        if settlement.tag.adopted:
            end += ("unadopt", settlement.tag.adopted)
        return end + effects(settlement, now) if effects else end

    def _call(self, owner: str, batch: Sequence[_Item]) -> list[Any]:
        number = f"{self._name}.{next(self._numbers)}"
        args = [owner, number, *_words(batch)]
        try:
            stale = self._client.script(COMMIT, [self._keys.prefix, self._client.result_prefix], args)
        except OperationalError as error:
            self._kept.clear()
            if getattr(error, "maybe_done", True):
                self._unsure[owner] = (number, frozenset([settlement.tag for settlement, _ in batch]))
            raise
        if not stale:
            return []
        tags = {b"%d" % settlement.tag.number: settlement.tag for settlement, _ in batch}
        return [tags[name] for name in stale]

    def _look_back(self, owner: str) -> dict[Any, bool]:
        """Return what a call whose reply was lost has settled: tag → whether it was stale."""
        unsure = self._unsure.get(owner)
        if unsure is not None:
            number, tags = unsure
            last = (self._client.call("GET", self._keys.of_owner("settled", owner)) or b"").split()
            del self._unsure[owner]
            if last and last[0] == number.encode():
                stale = set(last[1:])
                self._done.setdefault(owner, {}).update((tag, b"%d" % tag.number in stale) for tag in tags)
        return self._done.get(owner, {})

    # --- ends ----------------------------------------------------------------------------------------------

    def _raws(self, owner: str, settlements: Sequence[Settlement]) -> dict[Tag, bytes]:
        """Fetch the envelopes of the messages that go back or die: what they carry changes."""
        tags = [settlement.tag for settlement in settlements if settlement.end is not End.DONE]
        if not tags:
            return {}
        held = self._asked([("HGET", self._keys.held(owner, tag.list), tag.number) for tag in tags])
        raws = {tag: raw for tag, raw in zip(tags, held, strict=True) if raw is not None}
        large = [tag for tag, raw in raws.items() if not raw]
        envelopes = self._asked([("LINDEX", self._keys.large(tag.number), 0) for tag in large])
        return raws | {tag: raw or b"" for tag, raw in zip(large, envelopes, strict=True)}

    def _asked(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        answers = self._client.pipeline(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _end(self, settlement: Settlement, raws: dict[Tag, bytes], now: float) -> list[Any]:
        """Return what becomes of the message itself."""
        end, tag = settlement.end, settlement.tag
        raw = raws.get(tag)
        if raw is None:
            return []
        counts = read_counts(raw)
        if end is End.DEAD:
            queue = self._keys.queue_of(tag.list)
            found = deliver(raw, queue, 0, b"", accept=self._client.location.accept_content)
            id_ = "" if isinstance(found, Quarantined) else found.id
            return ["dead", letter_of_raw(raw, queue, settlement.reason, now, id_=id_, crashes=counts.crashes)]
        counts = Counts(
            tag.token,
            counts.crashes + (end is End.CRASHED),
            counts.offers + (end is End.OFFER),
            counts.head,
            counts.due,
            counts.expires,
            counts.published,
        )
        back = repack(raw, counts)
        if end is not End.RELEASE and settlement.due > now:
            return ["wait", tag.list, back, repr(settlement.due)]
        return ["front" if end is End.RELEASE else "push", tag.list, back]

    # --- what comes of it ----------------------------------------------------------------------------------

    def _effects(self, settlement: Settlement, now: float) -> list[Any]:
        args: list[Any] = []
        if settlement.record is not None:
            args += ("record", *record_words(settlement.record, now))
        for message in settlement.publish:
            args += self._publish(message, now)
        for part in joinable(settlement.parts):
            args += self._part(part, now)
        return args

    def _publish(self, message: Message, now: float) -> list[Any]:
        queues, channel = self._exchanges.route(message)
        args: list[Any] = []
        if not queues or channel:
            item = self._sending.address(message, message.queue, now)
            letter = b"" if queues else letter_of(message, item.raw, str(unroutable(message)), now)
            args += ("tell", channel, marked(item.raw), letter) if channel else ("dead", letter)
        for queue in queues:
            item = self._sending.address(message, queue, now)
            if item.due:
                args += ("wait", item.list, item.raw, repr(item.due))
            else:
                args += ("push", item.list, item.raw)
        return args

    def _part(self, part: Part, now: float) -> list[Any]:
        size = "" if part.size is None else part.size
        return ["part", part.group, part.index, part.payload, size, part.member, self._body(part, now)]

    def _body(self, part: Part, now: float) -> _Body | str:
        if part.body is None:
            return ""
        # Parts that come from different processes have copies of the same message.
        known = part.group, part.body.id
        if known not in self._bodies:
            packed = b"" if self._is_kept(part.group, now) else pack_message(part.body)
            self._bodies[known] = _Body(self._publish(part.body, now), packed)
        return self._bodies[known]

    def _is_kept(self, group: str, now: float) -> bool:
        """Tell whether the store has been given a body of this group lately; if not, it is given one now."""
        given = self._kept.get(group)
        if given is not None and now - given < _KEPT_FOR:
            return True
        self._kept.pop(group, None)
        self._kept[group] = now
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return False


def _words(batch: Sequence[_Item]) -> list[Any]:
    """Return the arguments of a call, as `commit.lua` reads them: results and ends in a row share what is the same."""
    words: list[Any] = []
    bodies: dict[_Body, int] = {}
    seconds, name, count = _NOTHING - 1, b"", 0
    for settlement, effects in batch:
        tag = settlement.tag
        if type(effects) is int:
            if effects != seconds or tag.list != name:
                seconds, name, count = effects, tag.list, len(words) + 3
                words += (name, "ends" if effects == _NOTHING else "results", seconds, 0)
            words[count] += 1
            record = settlement.record
            if effects == _NOTHING or record is None:
                words.append(tag.number)
            else:
                words += (tag.number, record.id, record.meta)
        else:
            assert isinstance(effects, list)
            if settlement.parts:
                effects = [_number(word, bodies, words) if type(word) is _Body else word for word in effects]
            words += (tag.list, tag.number, len(effects), *effects)
            seconds = _NOTHING - 1
    return words


def _number(body: _Body, bodies: dict[_Body, int], words: list[Any]) -> int:
    """Return the number of a body in a call; the first time its words come before those of the settlement."""
    if body not in bodies:
        bodies[body] = len(bodies) + 1
        words += ("", "body", len(body.effects), body.packed, *body.effects)
    return bodies[body]


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield what fits into one call each."""
    batch: list[_Item] = []
    bodies: set[_Body] = set()
    size = arguments = 0
    for item in items:
        record, effects = item[0].record, item[1]
        if isinstance(effects, list):
            cost, count = sum([len(word) for word in effects if type(word) is bytes]), len(effects)
            for body in {word for word in effects if type(word) is _Body} - bodies if item[0].parts else ():
                bodies.add(body)
                cost += len(body.packed) + sum([len(word) for word in body.effects if type(word) is bytes])
                count += len(body.effects) + 4
        else:
            cost, count = len(record.meta) if record is not None else 0, 4
        if batch and (arguments + count > _MOST_ARGUMENTS or size + cost > _MOST_BYTES):
            yield batch
            batch, size, arguments, bodies = [], 0, 0, set()
        batch.append(item)
        size += cost
        arguments += count + 3
    if batch:
        yield batch
