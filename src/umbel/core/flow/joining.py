"""The join of a group as a pure value: what every engine's counting is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["Group"]


@dataclass(frozen=True)
class Group:
    """What is known of a group: its size, once it is known, and a payload for each member that has ended.

    A group completes once: when the size is known and every index below it has its payload. What comes later, or a
    second time, changes nothing.
    """

    size: int | None = None
    parts: Mapping[int, bytes] = field(default_factory=dict)
    complete: bool = False

    def expect(self, size: int) -> Group:
        """The size is told; the first one told stays."""
        return self._checked(self if self.size is not None else replace(self, size=size))

    def join(self, index: int, payload: bytes) -> Group:
        """A member has ended; the first payload of an index stays."""
        if self.complete or index in self.parts or index < 0 or (self.size is not None and index >= self.size):
            return self
        return self._checked(replace(self, parts={**self.parts, index: payload}))

    def grow(self, by: int) -> tuple[Group, int]:
        """More members are to come; return the first of their indices. A group whose size is unknown cannot grow."""
        if self.size is None or self.complete:
            raise ValueError("a group grows while its size is known and members are still missing")
        return replace(self, size=self.size + by), self.size

    @property
    def payloads(self) -> tuple[bytes, ...]:
        """The payloads of a complete group by index; nothing before it is complete."""
        return tuple(self.parts[index] for index in range(self.size or 0)) if self.complete else ()

    def _checked(self, group: Group) -> Group:
        size = group.size
        done = size is not None and all(index in group.parts for index in range(size))
        return group if group.complete or not done else replace(group, complete=True)
