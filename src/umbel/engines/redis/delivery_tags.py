"""Delivery tags of envelopes: kombu keeps unacknowledged messages under them, so that no two may be the same."""

from __future__ import annotations

import itertools
import os
import uuid

__all__ = ["delivery_tag", "delivery_tags"]


class _Unique:
    """Texts in the form of a UUID that no other process makes."""

    def __init__(self) -> None:
        self._pid = 0
        self._prefix = ""
        self._numbers = itertools.count()

    def __call__(self) -> str:
        if self._pid != os.getpid():
            self._begin()
        return f"{self._prefix}{next(self._numbers):012x}"

    def many(self, count: int) -> list[bytes]:
        """Return so many of them."""
        if self._pid != os.getpid():
            self._begin()
        prefix = self._prefix.encode()
        return [b"%b%012x" % (prefix, number) for number in itertools.islice(self._numbers, count)]

    def _begin(self) -> None:
        self._prefix = str(uuid.uuid4())[:24]
        self._numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))
        self._pid = os.getpid()


#: One more delivery tag, and as many as are asked for.
delivery_tag = _Unique()
delivery_tags = delivery_tag.many
