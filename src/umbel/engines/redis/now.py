"""Whose clock counts: Redis' own, but for a caller whose clock is turned by hand."""

from __future__ import annotations

import time

__all__ = ["server_now"]

#: A caller whose time differs by more than this from the wall clock is taken at its word (seconds).
_BELIEVED = 60.0


def server_now(now: float) -> str:
    """Return `now` as scripts take it: "" for the server's own clock."""
    return "" if abs(now - time.time()) < _BELIEVED else repr(now)
