"""What one process holds of a main broker and of its shelf, by the tags that its worker knows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from umbel.core.message import Delivery, Message, Settlement

__all__ = ["Holdings", "Kept", "Key", "OnShelf"]

#: What tells messages apart.
Key = tuple[str, int, str]

#: How many acknowledged messages are remembered for the case that the main broker never heard of it.
_REMEMBERED = 10_000
_NEVER = (0, 0)


class OnShelf(NamedTuple):
    """The tag, towards the worker, of a delivery that came from the shelf."""

    tag: Any


def key_of(message: Message) -> Key:
    """Return what tells a message apart from others."""
    return message.id, message.generation, message.queue


@dataclass(eq=False, slots=True)
class Kept:
    """One delivery as the worker knows it, and where it is held."""

    owner: str
    delivery: Delivery
    #: The token that the shelf is given for it: grows each time that the message goes back.
    attempt: int
    since: float
    ticket: int = 0
    #: As held on the shelf; None while the main broker holds it.
    shelved: Delivery | None = None
    #: A call that failed may have put it onto the shelf.
    doubtful: bool = False
    #: What is published when it goes back.
    going_back: Delivery | None = None
    #: A thread is at work on it; others wait.
    busy: bool = False
    #: How many had been taken in before it.
    place: int = 0
    #: What the worker knows it by.
    tag: Any = field(init=False)
    token: int = field(init=False)
    #: What tells its message apart from others.
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        self.tag, self.token = self.delivery.tag, self.delivery.token
        self.key = key_of(self.delivery)


class Holdings:
    """The deliveries that this process holds; safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kept: dict[Any, Kept] = {}
        self._shelved: dict[Key, Kept] = {}
        #: Key → attempt of what has ended on the shelf lately, and how many had been taken in by then; oldest first.
        self._ended: OrderedDict[Key, tuple[int, int]] = OrderedDict()
        self._taken = 0
        #: (owner, tag, token) that a call had settled before it failed.
        self._settled: set[tuple[str, Any, int]] = set()

    def take(self, owner: str, delivery: Delivery, attempt: int, now: float) -> bool:
        """Take in what the main broker has leased; False for a copy of what is, or was, on the shelf."""
        key = key_of(delivery)
        with self._changed:
            known = self._shelved.get(key)
            if known is not None and known.shelved is not None and attempt <= known.shelved.token:
                return False
            # Only what was delivered before can be a copy of what has ended; else somebody sent the same id again.
            before = delivery.former_owner or delivery.doubtful
            if before and attempt <= self._ended.get(key, _NEVER)[0]:
                return False
            self._kept[delivery.tag] = Kept(owner, delivery, attempt, now, place=self._taken)
            self._taken += 1
        return True

    def outlived(self, kept: Kept) -> bool:
        """Tell whether this is a copy of what has ended on the shelf while the copy was waiting here."""
        attempt, taken = self._ended.get(kept.key, _NEVER)
        return kept.attempt <= attempt and kept.place < taken

    def inherit(self, owner: str, shelved: Delivery, delivery: Delivery, now: float) -> Delivery:
        """Take in what the shelf has given; return it with a tag of its own."""
        known = msgspec.structs.replace(delivery, tag=OnShelf(shelved.tag))
        with self._changed:
            kept = Kept(owner, known, shelved.token, now, shelved.ticket, shelved)
            self._kept[known.tag] = kept
            self._shelved[kept.key] = kept
        return known

    def shelved(self, kept: Iterable[Kept], found: Mapping[Key, Delivery]) -> list[Kept]:
        """Remember what the shelf holds now; return the others: copies of what it held before, for whomever."""
        copies: list[Kept] = []
        with self._changed:
            for k in kept:
                k.doubtful = False
                delivery = found.get(k.key)
                known = self._shelved.get(k.key)
                other = known.shelved if known is not None and known is not k else None
                if delivery is None or (other is not None and other.tag == delivery.tag):
                    copies.append(k)
                    continue
                k.shelved = delivery
                self._shelved[k.key] = k
        return copies

    def forget(self, kept: Iterable[Kept]) -> None:
        """Drop what is not held any more."""
        with self._changed:
            for k in kept:
                self._drop(k)

    def settled(self, owner: str, kept: Iterable[Kept]) -> None:
        """Drop what has been settled, and know until `complete` that it has been."""
        with self._changed:
            for k in kept:
                self._drop(k)
                self._settled.add((owner, k.tag, k.token))

    def _drop(self, kept: Kept) -> None:
        if self._kept.get(kept.tag) is kept:
            del self._kept[kept.tag]
        if kept.shelved is None:
            return
        if self._shelved.get(kept.key) is kept:
            del self._shelved[kept.key]
        self._ended[kept.key] = (kept.shelved.token, self._taken)
        self._ended.move_to_end(kept.key)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def was_settled(self, owner: str, tag: Any, token: int) -> bool:
        """Tell whether a call that failed later had settled this."""
        return (owner, tag, token) in self._settled

    def complete(self, owner: str, settlements: Iterable[Settlement]) -> None:
        """Forget what was remembered for the case that the call fails."""
        with self._changed:
            self._settled.difference_update([(owner, s.tag, s.token) for s in settlements])

    @contextmanager
    def working(self, owner: str, tags: Sequence[Any]) -> Iterator[dict[Any, Kept]]:
        """Give the deliveries of `owner` among the tags, to be worked on by this thread alone."""
        with self._changed:
            get = self._kept.get
            while any(k.busy for k in map(get, tags) if k is not None):
                self._changed.wait()
            mine = {tag: k for tag in tags if (k := get(tag)) is not None and k.owner == owner}
            for k in mine.values():
                k.busy = True
        try:
            yield mine
        finally:
            self._leave(mine)

    @contextmanager
    def working_on_old(self, owner: str, before: float) -> Iterator[list[Kept]]:
        """Give what the main broker has held for `owner` since `before` or longer, and nobody works on."""
        with self._changed:
            old = {
                k.tag: k
                for k in self._kept.values()
                if k.shelved is None and k.since <= before and not k.busy and k.owner == owner
            }
            for k in old.values():
                k.busy = True
        try:
            yield list(old.values())
        finally:
            self._leave(old)

    def _leave(self, kept: dict[Any, Kept]) -> None:
        with self._changed:
            for k in kept.values():
                k.busy = False
            self._changed.notify_all()
