"""One group of a memory engine: who has joined, and who is told that it is complete."""

from __future__ import annotations

from dataclasses import dataclass, field

from umbel.core.message import GROWN, Message


@dataclass(eq=False)
class Group:
    """The parts of one group by index; complete once there is one for every index below `size`."""

    size: int | None = None
    payloads: dict[int, bytes] = field(default_factory=dict)
    complete: bool = False
    #: The index whose part completed it; None where its size did.
    last: int | None = None
    #: Nobody is told again: the body is published, or the group is forgotten.
    confirmed: bool = False
    #: What its last part wants published, and since when it is complete (epoch seconds).
    body: Message | None = None
    since: float = 0.0
    #: For a forgotten group: when it may be opened anew; 0 while it is not forgotten.
    expires: float = 0.0
    #: How many members came later, and the first index of those that came with a key.
    grown: int = 0
    keys: dict[str, int] = field(default_factory=dict)

    def add(self, index: int, payload: bytes, size: int | None) -> bool:
        """Take a part; True when its caller is to be told that the group is complete."""
        if self.confirmed:
            return False
        if self.complete:
            return self.last == index
        if self.size is None:
            self.size = size
        self.payloads.setdefault(index, payload)
        return self._complete(index)

    def expect(self, size: int) -> bool:
        """Take the size; True when its caller is to be told that the group is complete."""
        if self.confirmed:
            return False
        if self.complete:
            return self.last is None
        if self.size is None:
            self.size = size
        return self._complete(None)

    def confirm(self) -> None:
        """Remember that the body is published."""
        if self.complete:
            self.confirmed, self.body = True, None

    def grow(self, by: int, key: str) -> int:
        """Take in so many members more; return the index of the first, a known key's that it had before."""
        if key in self.keys:
            return self.keys[key]
        first = GROWN + self.grown
        if not self.complete and not self.confirmed:
            self.grown += by
            if key:
                self.keys[key] = first
        return first

    def _complete(self, last: int | None) -> bool:
        if self.size is None or len(self.payloads) < self.size + self.grown:
            return False
        if not all(index in self.payloads for index in self._indices()):
            return False
        self.complete, self.last = True, last
        return True

    def _indices(self) -> list[int]:
        return [*range(self.size or 0), *range(GROWN, GROWN + self.grown)]

    def in_order(self) -> tuple[bytes, ...]:
        """Return the payloads by index."""
        return tuple(self.payloads[index] for index in self._indices())
