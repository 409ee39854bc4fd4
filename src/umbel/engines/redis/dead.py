"""Dead letters: the envelope as it was, why it was given up, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from umbel.core.head import Quarantined
from umbel.core.message import DeadLetter, Delivery, Message
from umbel.engines.redis.connection import Client
from umbel.engines.redis.envelopes import deliver, plain, repack
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.scripts import BURY, DROP, REVIVE
from umbel.engines.redis.sending import Sending

__all__ = ["Dead", "letter_of_raw"]

_PAGE = 500


class _Letter(msgspec.Struct, array_like=True, gc=False):
    """How a letter is stored."""

    raw: bytes
    queue: str
    reason: str
    buried: float
    crashes: int = 0
    #: "" where the envelope cannot be read.
    id: str = ""
    exchange: str = ""


_write = msgspec.msgpack.encode
_read = msgspec.msgpack.Decoder(_Letter).decode


def letter_of_raw(raw: bytes, queue: str, reason: str, now: float, *, id_: str = "", crashes: int = 0) -> bytes:
    """Return an envelope as a letter."""
    return _write(_Letter(raw, queue, reason, now, crashes, id_))


def letter_of(message: Message, raw: bytes, reason: str, now: float) -> bytes:
    """Return a message that was never leased as a letter."""
    return _write(_Letter(raw, message.queue, reason, now, 0, message.id, message.exchange))


class Dead:
    """The dead letters of one Redis."""

    def __init__(self, client: Client, keys: Keys, sending: Sending) -> None:
        self._client = client
        self._keys = keys
        self._sending = sending

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message that was never leased among the dead."""
        item = self._sending.address(message, message.queue, now)
        self._client.script(BURY, [self._keys.prefix], [letter_of(message, item.raw, reason, now)])

    def browse(self, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters with a number above `after`, oldest first."""
        numbers = self._client.call(
            "ZRANGEBYSCORE", self._keys.key(b"umbel.dead.order"), f"({after}", "+inf", "LIMIT", 0, limit
        )
        return self._fetch(int(number) for number in numbers)

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or ids; both None means all."""
        everything = numbers is None and ids is None
        if not everything and not ids:
            return self._fetch(sorted(set(numbers or ())))
        wanted, names = set(numbers or ()), set(ids or ())
        return [
            letter
            for letter in self._all()
            if everything or letter.number in wanted or letter.message.id in names
        ]  # fmt: skip

    def ids(self) -> set[str]:
        """Return the ids of all dead messages."""
        return {letter.message.id for letter in self._all()}

    def revive(self, numbers: Collection[int]) -> int:
        """Send letters again as fresh messages, their stored results forgotten; return how many."""
        args: list[Any] = []
        for number, letter in self._letters(sorted(set(numbers))):
            message = _message(letter)
            name = self._keys.list_of(letter.queue, message.priority)
            raw = letter.raw
            if message.id:
                raw = repack(raw, plain(raw))
            result = b"%bcelery-task-meta-%b" % (self._client.result_prefix, letter.id.encode())
            args += (number, name, raw, result)
        return int(self._client.script(REVIVE, [self._keys.prefix], args)) if args else 0

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters; return how many."""
        if not numbers:
            return 0
        return int(self._client.script(DROP, [self._keys.prefix], sorted(set(numbers))))

    # --- reading -------------------------------------------------------------------------------------------

    def _all(self) -> Iterable[DeadLetter]:
        after = 0
        while page := self.browse(after, _PAGE):
            yield from page
            after = page[-1].number

    def _fetch(self, numbers: Iterable[int]) -> list[DeadLetter]:
        return [
            DeadLetter(number, _message(letter), letter.reason, letter.buried, letter.crashes)
            for number, letter in self._letters(list(numbers))
        ]

    def _letters(self, numbers: list[int]) -> list[tuple[int, _Letter]]:
        if not numbers:
            return []
        values = self._client.call("HMGET", self._keys.key(b"umbel.dead"), *numbers)
        return [(number, _read(value)) for number, value in zip(numbers, values, strict=True) if value is not None]


def _message(letter: _Letter) -> Message:
    found = deliver(letter.raw, letter.queue, 0, b"")
    if isinstance(found, Quarantined):
        return Message(letter.id, "", letter.queue, b"", letter.raw)
    return _undelivered(found, letter.exchange)


def _undelivered(delivery: Delivery, exchange: str) -> Message:
    fields = {name: getattr(delivery, name) for name in Message.__struct_fields__}
    return Message(**{**fields, "exchange": exchange})
