"""What the supervisor and its consumer say to each other: small frames, and executors' sockets beside them."""

from __future__ import annotations

import socket
from collections import deque

import msgspec

from umbel.worker.frames import FrameReader, pack

_MAX_FDS = 16


class Note(msgspec.Struct, array_like=True, gc=False):
    """One thing said; which fields count depends on `what`.

    To the consumer: `executor` (slot, pid; its socket comes along), `exited` (slot, pid, text says how),
    `stop` (seconds of grace, below zero for none), `cold`. To the supervisor: `ready`, `kill` (slot, pid, signal),
    `lease-lost`, `shutdown`, `cold-shutdown`, `grow`/`shrink` (slot holds the number).
    """

    what: str
    slot: int = 0
    pid: int = 0
    signal: int = 0
    seconds: float = 0.0
    text: str = ""


class Link:
    """One end of the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader: FrameReader[Note] = FrameReader(Note)
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.sock.fileno()

    def send(self, note: Note, fd: int | None = None) -> None:
        """Send one note, with a descriptor if it carries one. Raises OSError when the other end is gone."""
        data = pack(note)
        if fd is None:
            self.sock.sendall(data)
        else:
            socket.send_fds(self.sock, [data], [fd])

    def receive(self) -> list[Note] | None:
        """Return what has come in; None when the other end is gone. Waits if nothing is there."""
        try:
            data, fds, _flags, _address = socket.recv_fds(self.sock, 65536, _MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        self._fds.extend(fds)
        return self._reader.feed(data) if data else None

    def take_fd(self) -> int:
        """Return the descriptor that came with the note at hand."""
        return self._fds.popleft()

    def close(self) -> None:
        """Close this end."""
        self.sock.close()
