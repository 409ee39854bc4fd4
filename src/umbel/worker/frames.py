"""Batches of values over a stream socket: a four-byte length, then msgpack."""

from __future__ import annotations

import socket
import struct
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_LENGTH = struct.Struct("!I")
#: How much one `recv` asks for.
_CHUNK = 1 << 18
_encoder = msgspec.msgpack.Encoder()


def pack(values: Any) -> bytes:
    """Return `values` as one frame."""
    data = _encoder.encode(values)
    return _LENGTH.pack(len(data)) + data


class FrameReader(Generic[T]):
    """Cuts a byte stream into frames and decodes each as `type_`."""

    def __init__(self, type_: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Take in bytes; return the frames that are complete now."""
        buffer = self._buffer
        buffer += data
        frames: list[T] = []
        position = 0
        size = len(buffer)
        while size - position >= 4:
            (length,) = _LENGTH.unpack_from(buffer, position)
            end = position + 4 + length
            if end > size:
                break
            with memoryview(buffer) as view:
                frames.append(self._decoder.decode(view[position + 4 : end]))
            position = end
        if position:
            del buffer[:position]
        return frames

    def read(self, sock: socket.socket, flags: int = 0) -> list[T] | None:
        """Receive once (with recv's `flags`) and return the complete frames; None at the end of the stream."""
        try:
            data = sock.recv(_CHUNK, flags)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        return self.feed(data)

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
