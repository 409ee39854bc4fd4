"""The join of a group as a pure value: what every engine's counting is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from umbel.core.message import GROWN

__all__ = ["Group"]


@dataclass(frozen=True)
class Group:
    """What is known of a group: its size, once it is known, and a payload for each member that has ended.

    A group completes once: when the size is known and every index below it, and of every member that came later, has
    its payload. What comes after that, or a second time, changes nothing.
    """

    size: int | None = None
    parts: Mapping[int, bytes] = field(default_factory=dict)
    complete: bool = False
    #: How many members came later; their indices begin at `GROWN`.
    grown: int = 0

    def expect(self, size: int) -> Group:
        """The size is told; the first one told stays."""
        return self._checked(self if self.size is not None else replace(self, size=size))

    def join(self, index: int, payload: bytes) -> Group:
        """A member has ended; the first payload of an index stays."""
        outside = index < 0 or (self.size is not None and index not in self._indices())
        if self.complete or outside or index in self.parts:
            return self
        return self._checked(replace(self, parts={**self.parts, index: payload}))

    def grow(self, by: int) -> tuple[Group, int]:
        """More members are to come; return the first of their indices. A complete group stays as it is."""
        first = GROWN + self.grown
        return (self if self.complete else replace(self, grown=self.grown + by)), first

    @property
    def payloads(self) -> tuple[bytes, ...]:
        """The payloads of a complete group by index; nothing before it is complete."""
        return tuple(self.parts[index] for index in self._indices()) if self.complete else ()

    def _indices(self) -> list[int]:
        return [*range(self.size or 0), *range(GROWN, GROWN + self.grown)]

    def _checked(self, group: Group) -> Group:
        done = group.size is not None and all(index in group.parts for index in group._indices())
        return group if group.complete or not done else replace(group, complete=True)
