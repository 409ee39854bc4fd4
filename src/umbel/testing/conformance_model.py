"""Random sequences of calls that every engine must answer as a plain reference model does (needs hypothesis)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from umbel.core.message import Delivery, End, Joined, Part, Settlement
from umbel.core.states import READY_STATES
from umbel.engine.seam import Atomic, Broker, Engine, Lease, Store
from umbel.testing.conformance_parts import message, record, step

__all__ = ["EngineMachine"]

_OWNERS = ("red", "blue", "green")
_GROUPS = ("g", "h")
_SECONDS = 10.0
#: The id of a body is the name of its group.
_PARTS: st.SearchStrategy[Part] = st.builds(
    lambda group, index, payload, size: Part(group, index, payload, size, message(group)),
    st.sampled_from(_GROUPS),
    st.integers(0, 4),
    st.sampled_from((b"x", b"y")),
    st.sampled_from((None, 2, 3)),
)


@dataclass
class _Copy:
    """A message as the model sees it; `owner` is "" while it waits."""

    id: str
    generation: int
    order: int
    priority: int
    due: float
    crashes: int = 0
    offers: int = 0
    token: int = 0
    tag: Any = None
    owner: str = ""
    ticket: int = 0
    former: str = ""

    def shown(self) -> tuple[str, int, int, int, int, int, int]:
        """What a delivery of it tells."""
        return self.id, self.generation, self.priority, self.token, self.crashes, self.offers, self.ticket


@dataclass
class _Group:
    """A group as the model sees it; `done` is the call that completed it (an index, or "size")."""

    size: int | None = None
    payloads: dict[int, bytes] = field(default_factory=dict)
    done: int | str | None = None
    confirmed: bool = False
    #: A part came before it was complete, and with it a body.
    brought: bool = False

    def call(self, index: int | str, payload: bytes, size: int | None) -> bool:
        """Take a part or (index "size") the size; True when the caller hears that the group is complete."""
        if self.done is None:
            self.size = size if self.size is None else self.size
            if isinstance(index, int):
                self.payloads.setdefault(index, payload)
                self.brought = True
            if self.size is not None and set(range(self.size)) <= self.payloads.keys():
                self.done = index
        return self.done == index and not self.confirmed

    def in_order(self) -> tuple[bytes, ...]:
        """Return the payloads by index."""
        return tuple(self.payloads[index] for index in range(self.size or 0))


class EngineMachine(RuleBasedStateMachine):
    """Publish, lease, start, extend, settle, join, crash and recover, in any order. Set `open` to a function that
    returns a fresh engine.
    """

    open: ClassVar[Callable[[], Engine]]

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine = type(self).open()
        assert self.engine.broker is not None
        assert self.engine.store is not None
        assert self.engine.atomic is not None
        self.broker: Broker = self.engine.broker
        self.store: Store = self.engine.store
        self.atomic: Atomic = self.engine.atomic
        self.now = 1_700_000_000.0
        self.copies: list[_Copy] = []
        self.deadlines: dict[str, float] = {}
        self.robbed: set[str] = set()
        self.final: dict[str, str] = {}
        self.buried: list[str] = []
        self.published = 0
        self.groups = {name: _Group() for name in _GROUPS}
        #: Every delivery ever made, held or not: settling an old one must change nothing.
        self.handles: list[tuple[str, Delivery]] = []

    def teardown(self) -> None:
        """Close the engine."""
        self.engine.close()

    # --- the model -----------------------------------------------------------------------------------------

    def _find(self, owner: str, delivery: Delivery) -> _Copy | None:
        for copy in self.copies:
            if copy.tag == delivery.tag and (copy.owner, copy.token) == (owner, delivery.token):
                return copy
        return None

    def _add(self, id_: str, generation: int, priority: int, due: float) -> None:
        known = any((copy.id, copy.generation) == (id_, generation) for copy in self.copies)
        if not known or not self.engine.caps.once:
            self.published += 1
            self.copies.append(_Copy(id_, generation, self.published, priority, due))

    def _match(self, got: list[Delivery], among: list[_Copy]) -> list[_Copy]:
        """Find for each delivery the copy that it is, in their order; nothing else may have come."""
        left, found = list(among), []
        for item in got:
            counts = (item.token, item.crashes, item.offers, item.ticket)
            seen = (item.id, item.generation, item.priority, *counts)
            alike = [copy for copy in left if copy.shown() == seen]
            assert alike, f"{seen} is none of {[copy.shown() for copy in left]}"
            left.remove(alike[0])
            found.append(alike[0])
        return found

    def _follows(self, taken: list[_Copy], ready: list[_Copy]) -> None:
        """Check that the right copies were taken, in the right order."""
        key = self._exact if self.engine.caps.priorities == "exact" else self._coarse
        assert [key(copy) for copy in taken] == sorted(map(key, ready))[: len(taken)]

    def _exact(self, copy: _Copy) -> tuple[int, int]:
        return -copy.priority, copy.order

    def _coarse(self, copy: _Copy) -> tuple[int, int]:
        """Where a queue is several lists, what went back and what became due lies between the others."""
        return step(self.engine, copy.priority), 0

    # --- calls ---------------------------------------------------------------------------------------------

    @rule(
        names=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1)), max_size=4),
        priority=st.sampled_from((0, 1, 2, 4)),
        delay=st.sampled_from((0.0, 0.0, 5.0)),
    )
    def publish(self, names: list[tuple[str, int]], priority: int, delay: float) -> None:
        """Publish messages, some of which are stored already."""
        due = self.now + delay if delay else 0.0
        batch = [message(name, priority=priority, due=due, generation=generation) for name, generation in names]
        assert self.broker.publish(batch, self.now) == []
        for name, generation in names:
            self._add(name, generation, priority, due)

    @rule(owner=st.sampled_from(_OWNERS), limit=st.integers(1, 4))
    def lease(self, owner: str, limit: int) -> None:
        """Lease; what comes must be the right messages in the right order."""
        ready = [copy for copy in self.copies if not copy.owner and copy.due <= self.now]
        asked = Lease(("q",), owner, limit, _SECONDS)
        got = self.broker.lease(asked, self.now)
        if self.engine.caps.once:
            assert len(got) == min(limit, len(ready))
        else:  # a call may be used up by what is not yet due and has been put away, but not many of them
            again = iter(range(len(self.copies)))
            while ready and not got and next(again, None) is not None:
                got = self.broker.lease(asked, self.now)
            assert len(got) <= min(limit, len(ready))
            assert bool(got) == bool(ready)
        for copy in ready:
            copy.token, copy.ticket, copy.former = copy.token + 1, 0, ""
        taken = self._match(got, ready)
        self._follows(taken, ready)
        for copy in ready:
            if not any(copy is one for one in taken):
                copy.token -= 1
        for item, copy in zip(got, taken, strict=True):
            # A tag is never used again: an old handle must not fit a new message.
            assert copy.tag == item.tag or item.tag not in {old.tag for _, old in self.handles}
            copy.owner, copy.tag = owner, item.tag
        if any(copy.owner == owner for copy in self.copies):
            self.deadlines[owner] = self.now + _SECONDS
        self.handles += [(owner, item) for item in got]

    @rule(data=st.data(), ticket=st.integers(1, 9))
    def start(self, data: st.DataObject, ticket: int) -> None:
        """Mark a delivery, old or held, as started."""
        if not self.handles:
            return
        owner, delivery = data.draw(st.sampled_from(self.handles))
        copy = self._find(owner, delivery)
        stale = self.broker.start(owner, [(delivery.tag, delivery.token, ticket)], self.now)
        assert stale == ([] if copy else [delivery.tag])
        if copy:
            copy.ticket, copy.former = ticket, ""

    @rule(data=st.data(), end=st.sampled_from(list(End)), delay=st.sampled_from((0.0, 5.0)), follow=st.booleans())
    def settle(self, data: st.DataObject, end: End, delay: float, follow: bool) -> None:
        """Settle a delivery, old or held, with a record, a follow-up and a part."""
        if not self.handles:
            return
        owner, delivery = data.draw(st.sampled_from(self.handles))
        copy = self._find(owner, delivery)
        state = data.draw(st.sampled_from(("SUCCESS", "FAILURE", "RETRY")))
        due = self.now + delay if delay else 0.0
        parts = tuple(data.draw(st.lists(_PARTS, max_size=1)))
        settlement = Settlement(
            delivery.tag,
            delivery.token,
            end,
            record(delivery.id, state),
            (message(delivery.id, generation=2),) if follow else (),
            due,
            "because",
            parts,
        )
        stale = self.atomic.commit(owner, [settlement], self.now)
        assert stale == ([] if copy else [delivery.tag])
        if copy is None:
            return
        if self.final.get(delivery.id) not in READY_STATES:
            self.final[delivery.id] = state
        if end in {End.DONE, End.DEAD}:
            self.copies.remove(copy)
            self.buried += [delivery.id] if end is End.DEAD else []
        else:
            copy.owner, copy.ticket, copy.former = "", 0, ""
            copy.due = 0.0 if end is End.RELEASE else due
            copy.crashes += end is End.CRASHED
            copy.offers += end is End.OFFER
        if follow:
            self._add(delivery.id, 2, 0, 0.0)
        for part in parts:
            if self.groups[part.group].call(part.index, part.payload, part.size):
                self.groups[part.group].confirmed = True
                self._add(part.group, 0, 0, 0.0)

    @rule(parts=st.lists(_PARTS, max_size=4))
    def join(self, parts: list[Part]) -> None:
        """Join members, some of which have joined already; each group that completes is told once."""
        expected: dict[str, Joined] = {}
        for part in parts:
            group = self.groups[part.group]
            if group.call(part.index, part.payload, part.size):
                expected.setdefault(part.group, Joined(part.group, group.in_order(), part.body))
        assert self.store.join(parts, self.now) == list(expected.values())

    @rule(name=st.sampled_from(_GROUPS), size=st.integers(0, 4))
    def expect(self, name: str, size: int) -> None:
        """Say how many members there are; who completes the group so is given the body that a part brought."""
        group = self.groups[name]
        told = group.call("size", b"", size)
        got = self.store.expect({name: size}, self.now)
        assert [(joined.group, joined.payloads) for joined in got] == ([(name, group.in_order())] if told else [])
        for joined in got:
            assert joined.body is None or joined.body.id == name
            # One that came when the group was complete may be kept or not.
            assert joined.body is not None or not group.brought

    @rule(name=st.sampled_from(_GROUPS))
    def confirm(self, name: str) -> None:
        """Say that the body is published."""
        self.groups[name].confirmed = self.groups[name].done is not None
        self.store.confirm([name])

    @rule(name=st.sampled_from(_GROUPS))
    def forget_group(self, name: str) -> None:
        """Forget a group; a part that comes later opens it anew."""
        self.groups[name] = _Group()
        self.store.forget_groups([name])

    @rule(owner=st.sampled_from(_OWNERS))
    def extend(self, owner: str) -> None:
        """Extend; an owner hears once that something was taken from it."""
        assert self.broker.extend(owner, _SECONDS, self.now) is (owner not in self.robbed)
        self.robbed.discard(owner)
        if owner in self.deadlines:
            self.deadlines[owner] = self.now + _SECONDS

    @rule(seconds=st.sampled_from((1.0, 5.0, 11.0)))
    def advance(self, seconds: float) -> None:
        """Let time pass: messages become due, owners lapse."""
        self.now += seconds

    @rule(heir=st.sampled_from(_OWNERS))
    def recover(self, heir: str) -> None:
        """Take over everything from every lapsed owner."""
        lapsed = {owner for owner, deadline in self.deadlines.items() if deadline <= self.now and owner != heir}
        expected = [copy for copy in self.copies if copy.owner in lapsed]
        for copy in expected:
            self.robbed.add(copy.owner)
            copy.former = copy.former or copy.owner
            copy.owner, copy.token = heir, copy.token + 1
            self.deadlines[heir] = self.now + _SECONDS
        got = self.broker.recover(Lease(("q",), heir, 1000, _SECONDS), self.now)
        assert len(got) == len(expected)
        for item, copy in zip(got, self._match(got, expected), strict=True):
            if self.engine.caps.once:
                assert (item.former_owner, item.tag) == (copy.former, copy.tag)
            copy.former, copy.tag = item.former_owner, item.tag
        self.handles += [(heir, item) for item in got]

    @rule(name=st.sampled_from("abcdef"))
    def revoke(self, name: str) -> None:
        """Revoke: waiting copies go, and where none is leased the task has ended."""
        copies = [copy for copy in self.copies if copy.id == name]
        waiting = [copy for copy in copies if not copy.owner]
        ended = self.store.revoke([record(name, "REVOKED")], self.now)
        if not self.engine.caps.remove:
            assert ended == []
            return
        assert ended == ([name] if waiting and len(waiting) == len(copies) else [])
        for copy in waiting:
            self.copies.remove(copy)
        if ended and self.final.get(name) not in READY_STATES:
            self.final[name] = "REVOKED"

    # --- what must always hold -----------------------------------------------------------------------------

    @invariant()
    def the_counts_are_right(self) -> None:
        """Depth, records and dead letters are what the model says."""
        depth = self.broker.depth(["q"], self.now)["q"]
        waiting = [copy for copy in self.copies if not copy.owner]
        assert depth.leased == len(self.copies) - len(waiting)
        scheduled = sum(copy.due > self.now for copy in waiting)
        assert depth.ready + depth.scheduled == len(waiting)
        # Where other kinds of producers and workers share the queues, a message may lie among the ready ones until
        # somebody meets it who can put it away.
        assert depth.scheduled == scheduled if self.engine.caps.once else depth.scheduled <= scheduled
        states = {id_: record.state for id_, record in self.store.get(list("abcdef"), self.now).items()}
        assert states == self.final
        complete = {name: group.in_order() for name, group in self.groups.items() if group.done is not None}
        assert self.store.joined(_GROUPS) == complete
        assert self.engine.dead is not None
        assert [letter.message.id for letter in self.engine.dead.browse(limit=10**6)] == self.buried
