"""The common completion marker: each task writes one byte to one file, in a single append."""

from __future__ import annotations

import os
import struct
import time

_handles: dict[str, int] = {}
_owner = 0


def _append(suffix: str, data: bytes) -> None:
    global _owner
    if _owner != os.getpid():
        _handles.clear()
        _owner = os.getpid()
    handle = _handles.get(suffix)
    if handle is None:
        path = os.environ["BENCH_MARKER"] + suffix
        handle = _handles[suffix] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, data)


def tick() -> None:
    """Say that one more task was executed."""
    _append("", b".")


def late(due: float) -> None:
    """Say that a task that was due at `due` (epoch seconds) was executed now."""
    _append(".late", struct.pack("<d", time.time() - due))
    _append("", b".")
