"""Large bodies of jobs in memory that a consumer shares with its executors: copied once, read where they lie.

Each executor has a part. What is put there lies in the order of the jobs, and stays until the consumer has the job
back, so that no body is written over while it may be read. Through a socket it would be copied four times.
"""

from __future__ import annotations

import mmap
from collections import deque

#: From so many bytes on a body goes through this memory.
LARGE = 4096
#: How large the part of an executor is, and all parts together where there are many.
_PART, _ALL = 1 << 23, 1 << 28


class Bodies:
    """The memory of a session. Made by the supervisor; consumer and executors inherit it. It is empty until used."""

    def __init__(self, count: int) -> None:
        self._size = max(min(_PART, _ALL // count), 1 << 18)
        self._memory = memoryview(mmap.mmap(-1, count * self._size))

    def part(self, index: int) -> memoryview:
        """Return the part of executor `index`."""
        return self._memory[index * self._size : (index + 1) * self._size]


class Places:
    """Which bytes of a part are lent to which jobs: handed out round and round. Used under the lock of the crew."""

    __slots__ = ("_lent", "_next", "part")

    def __init__(self, part: memoryview) -> None:
        self.part = part
        #: [start, whether it has come back], in the order in which they were lent.
        self._lent: deque[list[int]] = deque()
        self._next = 0

    def find(self, size: int) -> int:
        """Return where so many bytes in a row are free; -1 where none are."""
        if not self._lent:
            return 0 if size <= len(self.part) else -1
        first, last = self._lent[0][0], self._next
        if first < last:
            if last + size <= len(self.part):
                return last
            last = 0
        return last if last + size < first else -1

    def lend(self, size: int) -> int:
        """Return where so many bytes are from now on lent; -1 where there is no room for them."""
        start = self.find(size)
        if start >= 0:
            self._next = start + size
            self._lent.append([start, 0])
        return start

    def take_back(self, start: int) -> None:
        """Get bytes back."""
        lent = self._lent
        for one in lent:
            if one[0] == start:
                one[1] = 1
                break
        while lent and lent[0][1]:
            lent.popleft()

    def fill(self, start: int, body: bytes) -> None:
        """Put a body where it is lent."""
        self.part[start : start + len(body)] = body


def keep_memory() -> None:
    """Have this process keep memory that large bodies have needed, instead of getting it anew for each.

    glibc gives blocks above a threshold back to the system at once, and so the top of its heap; it raises both limits
    when such a block is freed. This one is never touched, so that it costs nothing.
    """
    bytes(_PART)
