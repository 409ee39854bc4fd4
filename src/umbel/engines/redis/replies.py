"""Replies with large values, read without hiredis: it copies them several times over while they come in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis

__all__ = ["LargeReplies", "lacks_much"]

#: From so many missing bytes on, a value is read here.
_MUCH = 16_384
#: How much is received at once where it is not known how much is to come: some large values, so that few are moved.
_ROOM = 1 << 20


def lacks_much(data: bytes) -> bool:
    """Tell whether the last value that begins in `data` is far from complete. May be wrong about odd contents, which
    costs time and nothing else.
    """
    start = data.rfind(b"\r\n$") + 3
    end = data.find(b"\r\n", start, start + 20)
    if start < 3 or end < 0:
        return False
    digits = data[start:end]
    return digits.isdigit() and end + int(digits) - len(data) > _MUCH


class LargeReplies:
    """Reads RESP2 replies from bytes that have come and from those to come: each value is copied once.

    `receive` waits for some bytes, puts them into the buffer that it is given and returns how many. Raises what that
    raises, and ValueError for what is not RESP2.
    """

    def __init__(self, data: bytes, receive: Callable[[memoryview], int]) -> None:
        #: What has come and was not read lies between these two.
        self._at, self._end = 0, len(data)
        self._room = bytearray(max(_ROOM, len(data)))
        self._room[: self._end] = data
        self.receive = receive

    @property
    def left(self) -> bool:
        """Whether bytes have come that were not read yet."""
        return self._at < self._end

    def read(self) -> Any:
        """Return the next reply as hiredis would."""
        line = self._line()
        kind = line[:1]
        if kind == b"$":
            return self._bulk(int(line[1:]))
        if kind == b"+":
            return line[1:]
        if kind == b"*":
            count = int(line[1:])
            return [self.read() for _ in range(count)] if count >= 0 else None
        if kind == b":":
            return int(line[1:])
        if kind == b"-":
            return hiredis.ReplyError(line[1:].decode("utf-8", "replace"))
        raise ValueError(f"a reply begins with {kind!r}")

    def _line(self) -> bytes:
        while (end := self._room.find(b"\r\n", self._at, self._end)) < 0:
            self._fill(self._end - self._at + 1)
        start, self._at = self._at, end + 2
        return bytes(self._room[start:end])

    def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        self._fill(size + 2)
        start = self._at
        self._at += size + 2
        with memoryview(self._room) as room:
            return bytes(room[start : start + size])

    def _fill(self, size: int) -> None:
        """Receive until so many bytes are there."""
        if self._at == self._end:
            self._at = self._end = 0
        if self._at + size > len(self._room):
            self._make_room(size)
        with memoryview(self._room) as room:
            while self._end - self._at < size:
                self._end += self.receive(room[self._end :])

    def _make_room(self, size: int) -> None:
        """Move what was not read to the front of a buffer that has room for so many bytes."""
        room = self._room if size <= len(self._room) else bytearray(size)
        have = self._end - self._at
        with memoryview(self._room) as old, memoryview(room) as new:
            new[:have] = old[self._at : self._end]
        self._room, self._at, self._end = room, 0, have
