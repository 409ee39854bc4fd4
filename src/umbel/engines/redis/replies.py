"""Replies with large values, read without hiredis: it copies them several times over while they come in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis

__all__ = ["LargeReplies", "lacks_much"]

#: From so many missing bytes on, a value is read straight into its place.
_MUCH = 16_384


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
    """Reads RESP2 replies from bytes that have come and from those to come.

    `receive` waits for some bytes and returns them; `fill` fills the whole of a buffer. Raises what they raise, and
    ValueError for what is not RESP2.
    """

    def __init__(self, data: bytes, receive: Callable[[], bytes], fill: Callable[[memoryview], None]) -> None:
        self._data = data
        self._at = 0
        self.receive = receive
        self.fill = fill
        #: Where values are put together.
        self._room = memoryview(bytearray())

    @property
    def left(self) -> bool:
        """Whether bytes have come that were not read yet."""
        return self._at < len(self._data)

    def read(self) -> Any:
        """Return the next reply as hiredis would."""
        line = self._line()
        kind = line[:1]
        if kind == b"$":
            return self._bulk(int(line[1:]))
        if kind == b"*":
            count = int(line[1:])
            return [self.read() for _ in range(count)] if count >= 0 else None
        if kind == b":":
            return int(line[1:])
        if kind == b"+":
            return line[1:]
        if kind == b"-":
            return hiredis.ReplyError(line[1:].decode("utf-8", "replace"))
        raise ValueError(f"a reply begins with {kind!r}")

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._data = self._data[self._at :] + self.receive()
            self._at = 0
        start, self._at = self._at, end + 2
        return self._data[start:end]

    def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        start = self._at
        end = start + size
        if end + 2 <= len(self._data):
            self._at = end + 2
            return self._data[start:end]
        have = len(self._data) - start
        if len(self._room) < size + 2:
            self._room = memoryview(bytearray(size + 2))
        room = self._room[: size + 2]
        room[:have] = self._data[start:]
        self.fill(room[have:])
        self._data, self._at = b"", 0
        return bytes(room[:size])
