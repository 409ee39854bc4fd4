"""Reports of one executor in memory that it shares with its consumer: handed over without a system call.

The executor appends a report and then moves one word, the *tail*, behind it; what a killed executor was just writing
lies beyond the tail and does not exist. What the tail says has left the executor for good: the memory outlives it.
Whoever appends rings the consumer's bell only when the consumer sleeps.
"""

from __future__ import annotations

import mmap
import platform
import struct
import threading
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

#: How many bytes of reports a ring holds. A power of two; what does not fit goes through the socket.
RING_BYTES = 1 << 16
#: The memory begins with a word that says whether the consumer sleeps, and each ring with its tail and its front, every
#: one in a cache line of its own, since different processes write them. Words are written through a memoryview, which
#: stores them in one step; `struct.pack_into` clears the place first, and a reader may see that.
_LINE = 64
_RING = 2 * _LINE + RING_BYTES
#: A tail is a count of reports (upper bits) and a position (lower bits), both modulo their size.
_POSITION_BITS = 40
_POSITIONS = (1 << _POSITION_BITS) - 1
_COUNTS = (1 << (64 - _POSITION_BITS)) - 1
_ARRAY_32 = struct.Struct(">BI")

_encode = msgspec.msgpack.Encoder().encode


class Rings:
    """The memory of all rings of a session. Made by the supervisor; consumer and executors inherit it."""

    def __init__(self, count: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, _LINE + count * _RING))
        self._asleep = self._memory[:8].cast("Q")

    def writer(self, index: int) -> RingWriter:
        """Return the executor's end of ring `index`; it goes on where the one before it ended."""
        return RingWriter(*self._parts(index), self._asleep)

    def reader(self, index: int, type_: Any) -> RingReader[Any]:
        """Return the consumer's end of ring `index`, which holds values of `type_`."""
        return RingReader(*self._parts(index), type_)

    def _parts(self, index: int) -> tuple[memoryview, memoryview, memoryview]:
        start = _LINE + index * _RING
        tail, front = self._memory[start : start + 8], self._memory[start + _LINE : start + _LINE + 8]
        return tail.cast("Q"), front.cast("Q"), self._memory[start + 2 * _LINE : start + _RING]

    def doze(self) -> None:
        """Say that the consumer is about to sleep: from now on whoever appends has to ring.

        The consumer looks at the rings once more after this.
        """
        self._asleep[0] = 1
        _fence()

    def rouse(self) -> None:
        """Say that the consumer is awake and will look at the rings by itself."""
        self._asleep[0] = 0


_barrier = threading.Lock()
#: These processors let no store pass another, and letting go of a lock is a full barrier there.
_KEEPS_ORDER = platform.machine().lower() in ("x86_64", "amd64", "i686")


def _fence() -> None:
    """Keep the processor from moving memory accesses across this point: letting go of a lock and taking one do."""
    with _barrier:
        pass
    with _barrier:
        pass


class RingWriter:
    """An executor's end. Its methods are called under a lock where threads share it."""

    __slots__ = ("_asleep", "_count", "_data", "_front", "_position", "_tail")

    def __init__(self, tail: memoryview, front: memoryview, data: memoryview, asleep: memoryview) -> None:
        self._tail, self._front, self._data, self._asleep = tail, front, data, asleep
        self._position = tail[0] & _POSITIONS
        self._count = tail[0] >> _POSITION_BITS

    def append(self, value: Any) -> bool:
        """Hand over one value; False when there is no room for it."""
        content = _encode(value)
        size = len(content)
        position = self._position
        if ((position - self._front[0]) & _POSITIONS) + size > RING_BYTES:
            return False
        at = position & (RING_BYTES - 1)
        if at + size <= RING_BYTES:
            self._data[at : at + size] = content
        else:
            fits = RING_BYTES - at
            self._data[at:] = content[:fits]
            self._data[: size - fits] = content[fits:]
        self._position = position = (position + size) & _POSITIONS
        self._count = count = (self._count + 1) & _COUNTS
        if not _KEEPS_ORDER:
            _fence()
        self._tail[0] = count << _POSITION_BITS | position
        with _barrier:
            pass
        if not _KEEPS_ORDER:
            _fence()
        return True

    @property
    def is_filling(self) -> bool:
        """Whether more than half of the ring waits to be read."""
        return ((self._position - self._front[0]) & _POSITIONS) > RING_BYTES // 2

    def must_ring(self) -> bool:
        """Tell whether the consumer sleeps; who is told so wakes it, and nobody else needs to."""
        if not self._asleep[0]:
            return False
        # First this, then the bell: the other way round, a consumer that woke and dozed again could be forgotten.
        self._asleep[0] = 0
        return True


class RingReader(Generic[T]):
    """The consumer's end."""

    __slots__ = ("_count", "_data", "_decode", "_front", "_position", "_tail")

    def __init__(self, tail: memoryview, front: memoryview, data: memoryview, type_: Any) -> None:
        self._tail, self._front, self._data = tail, front, data
        # What the executor before this one left has been taken when its end was told.
        self._count = tail[0] >> _POSITION_BITS
        self._position = front[0] = tail[0] & _POSITIONS
        self._decode = msgspec.msgpack.Decoder(list[type_]).decode

    def take(self) -> list[T]:
        """Return what was appended since the last time, in order."""
        tail = self._tail[0]
        count = ((tail >> _POSITION_BITS) - self._count) & _COUNTS
        if not count:
            return []
        _fence()
        begin = self._position & (RING_BYTES - 1)
        end = begin + ((tail - self._position) & _POSITIONS)
        # The values lie there as the items of a msgpack array; only its head is missing.
        pieces: list[bytes | memoryview] = [_ARRAY_32.pack(0xDD, count), self._data[begin : min(end, RING_BYTES)]]
        if end > RING_BYTES:
            pieces.append(self._data[: end - RING_BYTES])
        values = self._decode(b"".join(pieces))
        self._count = tail >> _POSITION_BITS
        self._position = tail & _POSITIONS
        _fence()
        self._front[0] = self._position
        return values
