"""Random lives of groups that every engine must answer as the pure join does (needs hypothesis).

Members join in any order and again, sizes are told early, late and twice, members are let in, and whoever made the
last calls dies and makes them once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from umbel.core.flow.joining import Group
from umbel.core.message import GROWN, Joined, Part
from umbel.engine.seam import Engine, Store
from umbel.testing.conformance_parts import message

__all__ = ["GroupMachine"]

_NAMES = ("g", "h")
#: Members may bring equal ones.
_PAYLOADS = (b"x", b"y")
#: Beyond what any clock says, a server's included.
_LATE = 4.0 * 10**9


@dataclass
class _Known:
    """A group as the model sees it: the pure join, who completed it, and what became of it then."""

    group: Group = field(default_factory=Group)
    #: The index whose part completed it; "size" where that was the size.
    last: int | str | None = None
    confirmed: bool = False
    #: Forgotten for long: nothing opens it again.
    closed: bool = False
    since: float = 0.0
    #: A part brought a body before it was complete; one that came after that may be kept or not.
    brought: bool = False
    #: First indices that were told under a key.
    keys: dict[str, int] = field(default_factory=dict)

    def take(self, call: int | str, group: Group, now: float) -> bool:
        """Take over what a call made of the group; True when its caller is told that it is complete."""
        if self.closed:
            return False
        if group.complete and not self.group.complete:
            self.last, self.since = call, now
        self.group = group
        return group.complete and self.last == call and not self.confirmed


class GroupMachine(RuleBasedStateMachine):
    """Join, expect, grow, confirm and forget, in any order and again. Set `open` to a function that returns a fresh
    engine.
    """

    open: ClassVar[Callable[[], Engine]]

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine = type(self).open()
        assert self.engine.store is not None
        self.store: Store = self.engine.store
        self.now = 1_700_000_000.0
        self.known = {name: _Known() for name in _NAMES}
        #: Every call made so far, to be made again by whoever has died before it heard of them.
        self.calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def teardown(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _do(self, call: Callable[..., None], *args: Any) -> None:
        self.calls.append((call, args))
        call(*args)

    # --- calls ---------------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 4))
    def join(self, data: st.DataObject, count: int) -> None:
        """Join members in one call; some of them have joined already, some are outside."""
        parts = []
        for _ in range(count):
            name = data.draw(st.sampled_from(_NAMES))
            grown = [*range(GROWN, GROWN + self.known[name].group.grown)]
            index = data.draw(st.sampled_from([0, 1, 2, 3, *grown]))
            body = message(name) if data.draw(st.booleans()) else None
            size = data.draw(st.sampled_from((None, None, 2)))
            parts.append(Part(name, index, data.draw(st.sampled_from(_PAYLOADS)), size, body, f"member {index}"))
        self._do(self._join, parts)

    def _join(self, parts: list[Part]) -> None:
        expected: dict[str, tuple[bytes, ...]] = {}
        for part in parts:
            known = self.known[part.group]
            group = known.group
            if part.size is not None and group.size is None:
                # Part and size are one step: it is this part that completes the group.
                group = Group(part.size, group.parts, group.complete, group.grown)
            known.brought |= part.body is not None and not known.group.complete and not known.closed
            if known.take(part.index, _checked(group.join(part.index, part.payload)), self.now):
                expected.setdefault(part.group, known.group.payloads)
        self._told(self.store.join(parts, self.now), expected)

    @rule(name=st.sampled_from(_NAMES), size=st.integers(0, 4))
    def expect(self, name: str, size: int) -> None:
        """Tell how many members there are."""
        self._do(self._expect, name, size)

    def _expect(self, name: str, size: int) -> None:
        known = self.known[name]
        told = known.take("size", known.group.expect(size), self.now)
        self._told(self.store.expect({name: size}, self.now), {name: known.group.payloads} if told else {})

    def _told(self, got: list[Joined], expected: dict[str, tuple[bytes, ...]]) -> None:
        assert {joined.group: joined.payloads for joined in got} == expected
        assert len(got) == len(expected)
        for joined in got:
            assert joined.body is None or joined.body.id == joined.group
            assert joined.body is not None or not self.known[joined.group].brought

    @rule(name=st.sampled_from(_NAMES), by=st.integers(1, 2), key=st.sampled_from(("", "a", "b")))
    def grow(self, name: str, by: int, key: str) -> None:
        """Let members in."""
        self._do(self._grow, name, by, key)

    def _grow(self, name: str, by: int, key: str) -> None:
        known, got = self.known[name], self.store.grow(name, by, self.now, key)
        if known.closed:
            return
        if key in known.keys:
            assert got == known.keys[key]
            return
        if key and not known.group.complete:
            known.keys[key] = got
        known.group, first = known.group.grow(by)
        assert got == first

    @rule(name=st.sampled_from(_NAMES))
    def confirm(self, name: str) -> None:
        """Say that the body is published."""
        self._do(self._confirm, name)

    def _confirm(self, name: str) -> None:
        self.known[name].confirmed |= self.known[name].group.complete
        self.store.confirm([name])

    @rule(name=st.sampled_from(_NAMES), long=st.booleans())
    def forget(self, name: str, long: bool) -> None:
        """Forget a group: until long after this test, or so that the next call opens it anew."""
        self._do(self._forget, name, long)

    def _forget(self, name: str, long: bool) -> None:
        self.known[name] = _Known(closed=long)
        self.store.forget_groups([name], _LATE if long else 0.0)

    @rule(seconds=st.sampled_from((1.0, 60.0)))
    def advance(self, seconds: float) -> None:
        """Let time pass; however long, nothing of an open group goes."""
        self.now += seconds
        self.store.expire(self.now)

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Make the last calls once more, in their order or in any."""
        if not self.calls:
            return
        last = self.calls[-data.draw(st.integers(1, 6)) :]
        for call, args in last if data.draw(st.booleans()) else data.draw(st.permutations(last)):
            call(*args)

    # --- what must always hold -----------------------------------------------------------------------------

    @invariant()
    def complete_groups_have_their_payloads(self) -> None:
        """What `joined` and `unconfirmed` say is what the pure join says."""
        complete = {name: known.group.payloads for name, known in self.known.items() if known.group.complete}
        assert self.store.joined(_NAMES) == complete
        late = {joined.group for joined in self.store.unconfirmed(self.now + 1)}
        open_ = {name for name in complete if not self.known[name].confirmed}
        assert late <= open_
        assert {name for name in open_ if self.known[name].brought} <= late
        # Those that have just become complete are still with whoever was told.
        assert self.store.unconfirmed(min((self.known[name].since for name in open_), default=self.now)) == []


def _checked(group: Group) -> Group:
    """Return a group that may have been completed by a size that came with a part."""
    return Group(None, group.parts, group.complete, group.grown).expect(group.size) if group.size is not None else group
