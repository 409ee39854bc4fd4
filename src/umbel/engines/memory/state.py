"""What a memory engine holds: plain dictionaries behind one lock."""

from __future__ import annotations

import heapq
import threading
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umbel.core.followers import stands_alone
from umbel.core.message import DeadLetter, Delivery, Joined, Message, Part, Record, joinable
from umbel.core.states import READY_STATES
from umbel.engines.memory.joins import Group


@dataclass(eq=False)
class Stored:
    """One message in one queue."""

    seq: int
    message: Message
    queue: str
    published: float
    due: float = 0.0
    crashes: int = 0
    offers: int = 0
    token: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among the ready messages of its queue."""
        return -self.message.priority, self.seq


@dataclass(eq=False)
class Held:
    """One lease."""

    stored: Stored
    token: int
    ticket: int = 0
    former: str = ""


@dataclass(eq=False)
class Owner:
    """Who leases: until when it is trusted, what it holds, and whether something was taken from it."""

    deadline: float
    held: dict[int, Held] = field(default_factory=dict)
    lost: bool = False


@dataclass(eq=False)
class State:
    """Everything that one memory engine knows. Hold `changed` while reading or writing it."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    last_seq: int = 0
    messages: dict[int, Stored] = field(default_factory=dict)
    by_id: dict[str, set[int]] = field(default_factory=dict)
    #: Queue → places of its ready messages, sorted.
    ready: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    #: (due, seq) as a heap; entries that `waiting` does not confirm are left-overs.
    schedule: list[tuple[float, int]] = field(default_factory=list)
    waiting: dict[int, float] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    bindings: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    letters: dict[int, DeadLetter] = field(default_factory=dict)
    last_letter: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    #: Grows with every record stored; a watch asks which ids changed after a number.
    last_change: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    #: Key of a piece of a workflow, or id of a saved group → bytes, and when they may go (0: never).
    plans: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    saved: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    #: Who hears a topic: functions that take what was sent, called with the lock held.
    ears: list[tuple[str, Callable[[str, Sequence[bytes]], None]]] = field(default_factory=list)

    def add(self, message: Message, queue: str, now: float) -> None:
        """Store a message in a queue unless (id, generation) is in it already."""
        if self.look_up(message, queue) is not None:
            return
        self.last_seq += 1
        stored = Stored(self.last_seq, message, queue, now)
        if isinstance(message, Delivery):
            stored.crashes, stored.offers = message.crashes, message.offers
        self.messages[stored.seq] = stored
        self.by_id.setdefault(message.id, set()).add(stored.seq)
        self.place(stored, message.due, now)

    def look_up(self, message: Message, queue: str) -> Stored | None:
        """Return what is stored of a message's (id, generation) in a queue."""
        for seq in self.by_id.get(message.id, ()):
            known = self.messages[seq]
            if known.message.generation == message.generation and known.queue == queue:
                return known
        return None

    def place(self, stored: Stored, due: float, now: float) -> None:
        """Make a message ready, or scheduled when its time has not come."""
        stored.due = due
        if due > now:
            self.waiting[stored.seq] = due
            heapq.heappush(self.schedule, (due, stored.seq))
        else:
            insort(self.ready.setdefault(stored.queue, []), stored.place)
        self.changed.notify_all()

    def next_due(self) -> float | None:
        """Return when the next scheduled message is due."""
        while self.schedule:
            due, seq = self.schedule[0]
            if self.waiting.get(seq) == due:
                return due
            heapq.heappop(self.schedule)
        return None

    def promote(self, now: float) -> None:
        """Make ready what is due."""
        while (due := self.next_due()) is not None and due <= now:
            _, seq = heapq.heappop(self.schedule)
            del self.waiting[seq]
            stored = self.messages[seq]
            insort(self.ready.setdefault(stored.queue, []), stored.place)

    def withdraw(self, stored: Stored) -> bool:
        """Remove a message that waits; False when it is leased."""
        if not self.unplace(stored):
            return False
        self.remove(stored)
        return True

    def end_waiting(self, stored: Stored, now: float) -> bool:
        """Remove a message that waits; False when it is leased.

        One that something may follow from is made ready instead: the worker that gets it tells whoever waits for it.
        """
        if not self.unplace(stored):
            return False
        if stands_alone(stored.message.body):
            self.remove(stored)
        else:
            self.place(stored, 0.0, now)
        return True

    def unplace(self, stored: Stored) -> bool:
        """Take a message out of those that wait; False when it is leased."""
        places = self.ready.get(stored.queue, [])
        if self.waiting.pop(stored.seq, None) is None:
            if stored.place not in places:
                return False
            places.remove(stored.place)
        return True

    def let_go(self, stored: Stored, token: int) -> bool:
        """Remove a message that is leased with a token below this one; False when it is not."""
        for owner in self.owners.values():
            held = owner.held.get(stored.seq)
            if held is not None and held.token < token:
                del owner.held[stored.seq]
                self.remove(stored)
                return True
        return False

    def remove(self, stored: Stored) -> None:
        """Forget a message."""
        del self.messages[stored.seq]
        seqs = self.by_id[stored.message.id]
        seqs.discard(stored.seq)
        if not seqs:
            del self.by_id[stored.message.id]

    def bury(self, message: Message, reason: str, now: float, crashes: int = 0) -> None:
        """Put a message among the dead."""
        self.last_letter += 1
        self.letters[self.last_letter] = DeadLetter(self.last_letter, message, reason, now, crashes)

    def put(self, record: Record, now: float) -> bool:
        """Store a state; False when a terminal one stays."""
        known = self.records.get(record.id)
        if known is not None and known.state in READY_STATES and not 0 < known.expires <= now:
            return False
        self.records[record.id] = record
        self.last_change += 1
        self.changes[record.id] = self.last_change
        self.changed.notify_all()
        return True

    def forget(self, id_: str) -> None:
        """Delete a state."""
        self.records.pop(id_, None)
        self.changes.pop(id_, None)

    def group(self, name: str, now: float) -> Group:
        """Return a group, opened now unless it exists."""
        known = self.groups.get(name)
        if known is None or 0 < known.expires <= now:
            known = self.groups[name] = Group()
        return known

    def join(self, parts: Sequence[Part], now: float) -> list[Joined]:
        """Store parts; return the groups that this completed."""
        joined: dict[str, Joined] = {}
        for part in joinable(parts):
            group = self.group(part.group, now)
            if not group.confirmed and part.body is not None:
                group.body = part.body
            if group.add(part.index, part.payload, part.size):
                group.since = group.since or now
                joined.setdefault(part.group, Joined(part.group, group.in_order(), group.body))
        return list(joined.values())
