"""What is done about a workflow whose producer died while it sent it: the chords that it left open end.

Every header gets a place more, which is taken by the failure, and its other places that nobody has taken yet are taken
too: so it is completed, and `umbel.join` goes on as with any member that has failed. Tasks that have been sent run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from umbel.app.canvas.underway import LeftOpen, Mark
from umbel.app.parts import encode_part
from umbel.core import states
from umbel.core.errors import ProducerLostError
from umbel.core.message import Part

__all__ = ["ends"]

#: Parts in one step of the store.
_CHUNK = 1000


def ends(app: Any, mark: Mark) -> list[Part]:
    """Return the parts that complete the headers of a mark, all others being in the store. Headers that have been
    completed without that, or sent as a whole, are left alone. May be done again.
    """
    error = ProducerLostError(_story(mark))
    open_ended = [left for left in mark.groups if left.upto is None or left.upto > mark.sent]
    return [part for left in open_ended for part in _end(app, left, error)]


def _story(mark: Mark) -> str:
    total = "" if mark.total is None else f" of {mark.total:,}"
    error = f" ({mark.error})" if mark.error else ""
    return f"the producer stopped while it sent the workflow: {mark.sent:,}{total} messages were surely sent{error}"


def _end(app: Any, left: LeftOpen, error: ProducerLostError) -> Iterator[Part]:
    store, now = app.store, time.time()
    first = store.grow(left.group, left.by, now, left.key)

    def part(index: int, place: str) -> Part:
        # Members whose ids nobody knows any more; no two payloads are alike.
        member = f"{left.group}[{place}]"
        return Part(left.group, index, encode_part(app.conf, member, states.FAILURE, error), None, left.join, member)

    if left.size != 0:
        # Its producer may have died before it told the size. Where that is unknown no place that was taken is of use.
        store.expect({left.group: left.size or 0}, now)
    for start in range(0, left.size or 0, _CHUNK):
        stop = min(start + _CHUNK, left.size or 0)
        store.join([part(index, str(index)) for index in range(start, stop)], now)
    for number in range(left.by):
        yield part(first + number, f"unsent {number}")
