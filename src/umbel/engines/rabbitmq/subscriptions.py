"""Which queues are being pushed to us and how far ahead: basic.consume, with credit that follows what is asked for.

The prefetch of a consumer cannot change while it consumes, so a new one takes over when more is wanted; both steps are
written without waiting for an answer. What is not wanted any more is stopped with basic.cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from umbel.engines.rabbitmq.connection import MESSAGES

__all__ = ["Subscription", "Subscriptions"]

_pack_frame = Struct(">BHI").pack
_pack_u16 = Struct(">H").pack
#: Up to so much the credit is exactly what is asked for; beyond, a quarter more, so that it need not change often.
_EXACT = 8
_MOST = 20_000


def _frame(payload: bytes) -> bytes:
    return _pack_frame(1, MESSAGES, len(payload)) + payload + b"\xce"


def _short(raw: bytes) -> bytes:
    return bytes((len(raw),)) + raw


def _qos(prefetch: int) -> bytes:
    return _frame(b"\x00\x3c\x00\x0a" + b"\x00\x00\x00\x00" + _pack_u16(prefetch) + b"\x00")


def _consume(queue: str, tag: bytes) -> bytes:
    # no-wait is the fourth bit; no arguments
    payload = b"\x00\x3c\x00\x14\x00\x00" + _short(queue.encode("utf-8", "surrogatepass")) + _short(tag)
    return _frame(payload + b"\x08" + b"\x00\x00\x00\x00")


def _cancel(tag: bytes) -> bytes:
    return _frame(b"\x00\x3c\x00\x1e" + _short(tag) + b"\x01")


@dataclass(eq=False)
class Subscription:
    """One queue's consumer: its tag, how many unacknowledged messages it may have, and has."""

    queue: str
    tag: bytes
    prefetch: int
    unacked: int = 0
    live: bool = True

    @property
    def credit(self) -> int:
        """How many more messages may come."""
        return self.prefetch - self.unacked if self.live else 0


class Subscriptions:
    """The consumers of one channel."""

    def __init__(self) -> None:
        self._count = 0
        #: By tag, those that were stopped and may still have messages with us among them.
        self.by_tag: dict[bytes, Subscription] = {}
        #: The one of each queue that is being pushed.
        self.live: dict[str, Subscription] = {}

    def ask(self, queues: Iterable[str], wanted: int, held: int) -> bytes:
        """Return the frames that make at least `wanted` more messages of the queues welcome; b"" for no change.

        `held` says how many messages are with us already: they count in the new credit, so that it lasts.
        """
        names = tuple(queues)
        frames: list[bytes] = [self._stop(item) for item in list(self.live.values()) if item.queue not in names]
        share = -(-wanted // len(names)) if names else 0
        for name in names:
            current = self.live.get(name)
            if share <= 0 or (current is not None and current.credit >= share):
                continue
            prefetch = share if held + share <= _EXACT else share + held + (share + held) // 4
            frames.append(_qos(min(prefetch, _MOST)))
            frames.append(self._begin(name, min(prefetch, _MOST)))
            if current is not None:
                frames.append(self._stop(current, replaced=True))
        return b"".join(frames)

    def _begin(self, queue: str, prefetch: int) -> bytes:
        self._count += 1
        tag = b"umbel.%d" % self._count
        self.live[queue] = self.by_tag[tag] = Subscription(queue, tag, prefetch)
        return _consume(queue, tag)

    def _stop(self, item: Subscription, *, replaced: bool = False) -> bytes:
        item.live = False
        if not replaced:
            del self.live[item.queue]
        return _cancel(item.tag)

    def stop(self) -> bytes:
        """Return the frames after which nothing more is pushed."""
        return b"".join([self._stop(item) for item in list(self.live.values())])

    def arrived(self, tag: bytes) -> Subscription | None:
        """Count a message in; None for a tag nobody knows."""
        item = self.by_tag.get(tag)
        if item is not None:
            item.unacked += 1
        return item

    def gone(self, item: Subscription) -> None:
        """Count a message out."""
        item.unacked -= 1

    def ended(self, tag: bytes) -> str | None:
        """The server has ended a consumer (its queue was deleted): return the queue if it was being pushed."""
        item = self.by_tag.get(tag)
        if item is None or not item.live:
            return None
        item.live = False
        self.live.pop(item.queue, None)
        return item.queue

    @property
    def credit(self) -> int:
        """How many messages may still come unasked."""
        return sum(item.credit for item in self.live.values())
