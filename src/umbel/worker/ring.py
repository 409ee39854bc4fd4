"""Reports of one executor in memory that it shares with its consumer: handed over without a system call.

The executor appends a report and then moves one word, the *tail*, behind it; what a killed executor was just writing
lies beyond the tail and does not exist. What the tail says has left the executor for good: the memory outlives it.
Whoever appends rings the consumer's bell only when the consumer sleeps.
"""

from __future__ import annotations

import mmap
import struct
import threading
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

#: How many bytes of reports a ring holds. A power of two; what does not fit goes through the socket.
RING_BYTES = 1 << 16
#: The head of a memory of rings: a word that says whether the consumer sleeps. The head of a ring: tail, then front,
#: each in a cache line of its own, since different processes write them.
_LINE = 64
_WORD = struct.Struct("=Q")
#: A tail is a count of reports (upper bits) and a position (lower bits), both modulo their size.
_POSITION_BITS = 40
_POSITIONS = (1 << _POSITION_BITS) - 1
_COUNTS = (1 << (64 - _POSITION_BITS)) - 1
_ARRAY_32 = struct.Struct(">BI")

_encode = msgspec.msgpack.Encoder().encode


class Rings:
    """The memory of all rings of a session. Made by the supervisor; consumer and executors inherit it."""

    def __init__(self, count: int) -> None:
        self._map = mmap.mmap(-1, _LINE + count * (2 * _LINE + RING_BYTES))

    def writer(self, index: int) -> RingWriter:
        """Return the executor's end of ring `index`; it goes on where the one before it ended."""
        return RingWriter(self._map, _start_of(index))

    def reader(self, index: int, type_: Any) -> RingReader[Any]:
        """Return the consumer's end of ring `index`, which holds values of `type_`."""
        return RingReader(self._map, _start_of(index), type_)

    def doze(self) -> None:
        """Say that the consumer is about to sleep: from now on whoever appends has to ring.

        The consumer looks at the rings once more after this.
        """
        _WORD.pack_into(self._map, 0, 1)
        _fence()

    def rouse(self) -> None:
        """Say that the consumer is awake and will look at the rings by itself."""
        _WORD.pack_into(self._map, 0, 0)


def _start_of(index: int) -> int:
    return _LINE + index * (2 * _LINE + RING_BYTES)


_barrier = threading.Lock()


def _fence() -> None:
    """Keep the processor from moving memory accesses across this point: letting go of a lock and taking one do."""
    with _barrier:
        pass
    with _barrier:
        pass


class RingWriter:
    """An executor's end. Its methods are called under a lock where threads share it."""

    __slots__ = ("_count", "_data", "_map", "_position", "_start")

    def __init__(self, mapped: mmap.mmap, start: int) -> None:
        self._map = mapped
        self._start = start
        self._data = start + 2 * _LINE
        (tail,) = _WORD.unpack_from(mapped, start)
        self._position = tail & _POSITIONS
        self._count = tail >> _POSITION_BITS

    def append(self, value: Any) -> bool:
        """Hand over one value; False when there is no room for it."""
        data = _encode(value)
        size = len(data)
        mapped, position = self._map, self._position
        (front,) = _WORD.unpack_from(mapped, self._start + _LINE)
        if ((position - front) & _POSITIONS) + size > RING_BYTES:
            return False
        at = position & (RING_BYTES - 1)
        first = self._data + at
        if at + size <= RING_BYTES:
            mapped[first : first + size] = data
        else:
            rest = RING_BYTES - at
            mapped[first : first + rest] = data[:rest]
            mapped[self._data : self._data + size - rest] = data[rest:]
        self._position = position = (position + size) & _POSITIONS
        self._count = count = (self._count + 1) & _COUNTS
        _fence()
        _WORD.pack_into(mapped, self._start, count << _POSITION_BITS | position)
        _fence()
        return True

    def must_ring(self) -> bool:
        """Tell whether the consumer sleeps; who is told so wakes it, and nobody else needs to."""
        if not self._map[0]:
            return False
        # First this, then the bell: the other way round, a consumer that woke and dozed again could be forgotten.
        _WORD.pack_into(self._map, 0, 0)
        return True


class RingReader(Generic[T]):
    """The consumer's end."""

    __slots__ = ("_count", "_data", "_decode", "_front", "_map", "_start")

    def __init__(self, mapped: mmap.mmap, start: int, type_: Any) -> None:
        self._map = mapped
        self._start = start
        self._data = start + 2 * _LINE
        (tail,) = _WORD.unpack_from(mapped, start)
        # What the executor before this one left has been taken when its end was told.
        self._count = tail >> _POSITION_BITS
        self._front = tail & _POSITIONS
        _WORD.pack_into(mapped, start + _LINE, self._front)
        self._decode = msgspec.msgpack.Decoder(list[type_]).decode

    def take(self) -> list[T]:
        """Return what was appended since the last time, in order."""
        mapped = self._map
        (tail,) = _WORD.unpack_from(mapped, self._start)
        count = ((tail >> _POSITION_BITS) - self._count) & _COUNTS
        if not count:
            return []
        _fence()
        begin, end = self._front & (RING_BYTES - 1), tail & (RING_BYTES - 1)
        size = ((tail & _POSITIONS) - self._front) & _POSITIONS
        data = self._data
        if begin + size <= RING_BYTES:
            content = mapped[data + begin : data + begin + size]
        else:
            content = mapped[data + begin : data + RING_BYTES] + mapped[data : data + end]
        self._count = tail >> _POSITION_BITS
        self._front = tail & _POSITIONS
        _fence()
        _WORD.pack_into(mapped, self._start + _LINE, self._front)
        # The values lie there as the items of a msgpack array; only its head is missing.
        return self._decode(_ARRAY_32.pack(0xDD, count) + content)
