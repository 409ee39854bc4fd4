"""The common completion marker: each task writes one byte to one file, in a single append."""

from __future__ import annotations

import os

_handle = -1
_owner = 0


def tick() -> None:
    """Say that one more task was executed."""
    global _handle, _owner
    if _owner != os.getpid():
        _handle = os.open(os.environ["BENCH_MARKER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _owner = os.getpid()
    os.write(_handle, b".")
