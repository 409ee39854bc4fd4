"""Batches of values over a stream socket: a four-byte length, then msgpack."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_LENGTH = struct.Struct("!I")
#: How much one `recv` asks for at most.
_CHUNK = 1 << 18
#: What is asked for as the buffer of a socket for sending; systems give less (Linux: net.core.wmem_max).
_SEND_BUFFER = 1 << 19
_encoder = msgspec.msgpack.Encoder()


def pack(values: Any) -> bytes:
    """Return `values` as one frame."""
    data = _encoder.encode(values)
    return _LENGTH.pack(len(data)) + data


def room_for_frames(sock: socket.socket) -> int:
    """Give a stream socket a large buffer for sending; return how many bytes of frames it holds that nobody reads."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    # The system counts its own records of them as well.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 2 // 3


class FrameReader(Generic[T]):
    """Cuts a byte stream into frames and decodes each as `type_`."""

    def __init__(self, type_: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        #: What has come and is no whole frame yet is at its front; where that ends.
        self._buffer = bytearray(_CHUNK)
        self._filled = 0

    def feed(self, data: bytes) -> list[T]:
        """Take in bytes; return the frames that are complete now."""
        end = self._filled + len(data)
        if end > len(self._buffer):
            self._resize(end)
        self._buffer[self._filled : end] = data
        self._filled = end
        return self._cut()

    def _cut(self) -> list[T]:
        frames: list[T] = []
        position, size = 0, self._filled
        with memoryview(self._buffer) as view:
            while size - position >= 4:
                (length,) = _LENGTH.unpack_from(view, position)
                end = position + 4 + length
                if end > size:
                    break
                frames.append(self._decoder.decode(view[position + 4 : end]))
                position = end
        left = size - position
        if position and left:
            self._buffer[:left] = self._buffer[position:size]
        self._filled = left
        if left >= 4:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length + 4 > len(self._buffer):
                self._resize(length + 4)
        elif len(self._buffer) > 8 * _CHUNK:
            self._resize(_CHUNK)
        return frames

    def _resize(self, size: int) -> None:
        buffer = bytearray(max(size, _CHUNK))
        buffer[: self._filled] = self._buffer[: self._filled]
        self._buffer = buffer

    def read(self, sock: socket.socket, flags: int = 0) -> list[T] | None:
        """Receive once (with recv's `flags`) and return the complete frames; None at the end of the stream."""
        with memoryview(self._buffer) as whole, whole[self._filled :] as free:
            try:
                count = sock.recv_into(free, 0, flags)
            except (BlockingIOError, InterruptedError):
                return []
            except OSError:
                return None
        if not count:
            return None
        self._filled += count
        return self._cut()

    def drain(self, sock: socket.socket) -> list[T]:
        """Return every complete frame that a process which has ended left in the socket."""
        frames: list[T] = []
        while True:
            try:
                data = sock.recv(_CHUNK, socket.MSG_DONTWAIT)
            except OSError:
                return frames
            if not data:
                return frames
            frames += self.feed(data)
