"""The broker, the dead letters and the atomic commit of a memory engine."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from umbel.core.errors import Unroutable
from umbel.core.message import DeadLetter, Delivery, Depth, End, Message, Settlement, Stage
from umbel.core.queues import Queue
from umbel.engine.exchanges import resolve
from umbel.engine.seam import Lease, Refusal
from umbel.engines.memory.state import Held, Owner, State, Stored

_ORDER = (Stage.DEAD, Stage.SCHEDULED, Stage.QUEUED, Stage.LEASED, Stage.STARTED)


class MemoryBroker:
    """Where messages wait: Broker, DeadLetters and Atomic of `umbel.engine.seam` in plain dictionaries."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: Owners that have leased here → whether `wake` is still to end their wait.
        self._woken: dict[str, bool] = {}
        self._turn = 0

    # --- in ------------------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings exist."""
        with self._state.changed:
            for queue in queues:
                if not queue.no_declare:
                    self._state.ready.setdefault(queue.name, [])
                for exchange, kind, key in queue.routes():
                    self._state.kinds[exchange] = kind
                    if not queue.no_declare:
                        self._state.bindings.setdefault(exchange, set()).add((key, queue.name))

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete queues with all that is in them; a copy that nobody removes goes with this process."""
        names = {queue.name for queue in queues}
        with self._state.changed:
            for bound in self._state.bindings.values():
                bound -= {item for item in bound if item[1] in names}
            for owner in self._state.owners.values():
                for seq in [seq for seq, held in owner.held.items() if held.stored.queue in names]:
                    self._state.remove(owner.held.pop(seq).stored)
            for stored in [each for each in self._state.messages.values() if each.queue in names]:
                self._state.withdraw(stored)
            for name in names:
                self._state.ready.pop(name, None)

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages; return those that no queue is bound for."""
        with self._state.changed:
            return self._insert(messages, now)

    def _insert(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        refusals = []
        for index, message in enumerate(messages):
            names = self._route(message)
            if not names:
                text = f"exchange {message.exchange!r} has no queue bound for routing key {message.queue!r}"
                refusals.append(
                    Refusal(
                        index,
                        Unroutable(f"task {message.task}: {text}; declare the queue or correct the route"),
                    )
                )
            for name in names:
                self._state.add(message, name, now)
        return refusals

    def _route(self, message: Message) -> list[str]:
        if not message.exchange:
            return [message.queue]
        kind = self._state.kinds.get(message.exchange, "direct")
        return resolve(kind, message.queue, self._state.bindings.get(message.exchange, ()))

    # --- leases --------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take ready messages; with none, wait for one, a due time or `wake`."""
        began = time.monotonic()
        state = self._state
        with state.changed:
            self._turn += 1
            self._woken.setdefault(lease.owner, False)
            while True:
                elapsed = time.monotonic() - began if wait > 0 else 0.0
                taken = self._take(lease, now + elapsed)
                left = wait - elapsed
                woken, self._woken[lease.owner] = self._woken[lease.owner], False
                if taken or woken or left <= 0 or lease.limit <= 0:
                    return taken
                due = state.next_due()
                state.changed.wait(left if due is None else max(0.0, min(left, due - now - elapsed)))

    def _take(self, lease: Lease, now: float) -> list[Delivery]:
        state = self._state
        state.promote(now)
        names = [name for name in lease.queues if name in state.ready]
        if len(names) > 1:
            first = self._turn % len(names)
            names = names[first:] + names[:first]
        if lease.owner in state.owners:
            state.owners[lease.owner].deadline = now + lease.seconds
        share = -(-lease.limit // len(names)) if names else 0
        taken: list[Delivery] = []
        for quota in (share, lease.limit):
            for name in names:
                count = min(quota, lease.limit - len(taken))
                places = self._places(name, lease, max(count, 0))
                taken += [self._hold(state.messages[seq], lease, now) for _, seq in places]
        return taken

    def _places(self, name: str, lease: Lease, count: int) -> list[tuple[int, int]]:
        """Take up to `count` places of a queue's ready messages, tasks left to others not among them."""
        ready = self._state.ready[name]
        if not lease.without:
            places = ready[:count]
            del ready[: len(places)]
            return places
        places = [place for place in ready if self._state.messages[place[1]].message.task not in lease.without][:count]
        for place in places:
            ready.remove(place)
        return places

    def _hold(self, stored: Stored, lease: Lease, now: float) -> Delivery:
        owner = self._keep(lease.owner, now + lease.seconds)
        held = owner.held[stored.seq] = Held(stored, stored.token + 1)
        return _delivery(held)

    def _keep(self, name: str, deadline: float) -> Owner:
        owner = self._state.owners.setdefault(name, Owner(deadline))
        owner.deadline = deadline
        return owner

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Take up to the limit of messages that are not due yet, the next ones first, held as any other."""
        state = self._state
        with state.changed:
            state.promote(now)
            waiting = sorted((due, seq) for seq, due in state.waiting.items())
            later = [state.messages[seq] for _, seq in waiting if state.messages[seq].queue in lease.queues]
            taken = [stored for stored in later[: lease.limit] if state.unplace(stored)]
            return [self._hold(stored, lease, now) for stored in taken]

    def wake(self) -> None:
        """End every lease that waits, or its next wait."""
        with self._state.changed:
            self._woken = dict.fromkeys(self._woken, True)
            self._state.changed.notify_all()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Write tickets; return the tags that the owner does not hold any more."""
        del now
        stale = []
        with self._state.changed:
            for tag, token, ticket in tickets:
                held = self._held(owner, tag, token)
                if held is None:
                    stale.append(tag)
                else:
                    held.ticket, held.former = ticket, ""
        return stale

    def _held(self, owner: str, tag: Any, token: int) -> Held | None:
        known = self._state.owners.get(owner)
        held = None if known is None else known.held.get(tag)
        return held if held is not None and held.token == token else None

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep the leases of `owner`; False, once, when messages have been taken from it."""
        with self._state.changed:
            known = self._state.owners.get(owner)
            if known is None:
                return True
            known.deadline = now + seconds
            lost, known.lost = known.lost, False
            return not lost

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases; return the tags that were stale."""
        with self._state.changed:
            return [item.tag for item in settlements if not self._end(owner, item, now)]

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """Apply record, follow-ups, parts and end of lease of each settlement together; return the stale tags."""
        stale = []
        with self._state.changed:
            for settlement in settlements:
                if not self._end(owner, settlement, now):
                    stale.append(settlement.tag)
                    continue
                if settlement.record is not None:
                    self._state.put(settlement.record, now)
                complete = self._state.join(settlement.parts, now)
                for joined in complete:
                    self._state.groups[joined.group].confirm()
                follow_ups = [*settlement.publish, *(joined.body for joined in complete if joined.body is not None)]
                for refusal in self._insert(follow_ups, now):
                    self._state.bury(follow_ups[refusal.index], str(refusal.error), now)
        return stale

    def _end(self, owner: str, settlement: Settlement, now: float) -> bool:
        held = self._held(owner, settlement.tag, settlement.token)
        if held is None:
            return False
        state, stored, end = self._state, held.stored, settlement.end
        del state.owners[owner].held[settlement.tag]
        if end is End.DONE or end is End.DEAD:
            state.remove(stored)
            if end is End.DEAD:
                state.bury(_as_sent(stored), settlement.reason, now, stored.crashes)
            return True
        stored.token = held.token
        stored.crashes += end is End.CRASHED
        stored.offers += end is End.OFFER
        state.place(stored, 0.0 if end is End.RELEASE else settlement.due, now)
        return True

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over from owners whose deadline has passed or who are known to be dead."""
        taken: list[Delivery] = []
        with self._state.changed:
            for name, owner in list(self._state.owners.items()):
                if name == lease.owner or (owner.deadline > now and name not in lease.dead):
                    continue
                for seq, held in sorted(owner.held.items()):
                    if len(taken) < lease.limit and (not lease.queues or held.stored.queue in lease.queues):
                        owner.lost = True
                        del owner.held[seq]
                        if held.stored.due > now:
                            # It was taken before its time, and waits for that again.
                            self._state.place(held.stored, held.stored.due, now)
                            continue
                        heir = self._keep(lease.owner, now + lease.seconds)
                        held = heir.held[seq] = Held(held.stored, held.token + 1, held.ticket, held.former or name)
                        taken.append(_delivery(held))
        return taken

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages as leased to `lease.owner`; return those that it holds now."""
        with self._state.changed:
            owner = self._keep(lease.owner, now + lease.seconds)
            return [_delivery(held) for sent in deliveries if (held := self._adopt(owner, sent, now)) is not None]

    def _adopt(self, owner: Owner, sent: Delivery, now: float) -> Held | None:
        state = self._state
        known = state.look_up(sent, sent.queue)
        if known is not None and state.let_go(known, sent.token):
            known = None
        if known is None:
            seq = state.last_seq = state.last_seq + 1
            known = Stored(
                seq, sent, sent.queue, sent.published or now, sent.due, sent.crashes, sent.offers, sent.token
            )
            state.messages[seq] = known
            state.by_id.setdefault(sent.id, set()).add(seq)
            owner.held[seq] = Held(known, sent.token, former=sent.former_owner)
        held = owner.held.get(known.seq)
        if held is not None:
            held.ticket = sent.ticket
        return held

    # --- looking and clearing ------------------------------------------------------------------------------

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue; no names means every queue."""
        with self._state.changed:
            names = {stored.queue for stored in self._state.messages.values()} | self._state.ready.keys()
            counts = {name: Depth() for name in queues or sorted(names)}
            for name, count in counts.items():
                count.ready = len(self._state.ready.get(name, ()))
            for seq, due in self._state.waiting.items():
                waiting = counts.get(self._state.messages[seq].queue)
                if waiting is not None:
                    waiting.ready += due <= now
                    waiting.scheduled += due > now
            for owner in self._state.owners.values():
                for held in owner.held.values():
                    leased = counts.get(held.stored.queue)
                    if leased is not None:
                        leased.leased += 1
            return counts

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready and scheduled messages of the queues; return how many."""
        with self._state.changed:
            waiting = [stored for stored in self._state.messages.values() if stored.queue in queues]
            return sum(self._state.withdraw(stored) for stored in waiting)

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are."""
        found: dict[str, Stage] = {}
        with self._state.changed:
            tickets = {seq: held.ticket for owner in self._state.owners.values() for seq, held in owner.held.items()}
            buried = {letter.message.id for letter in self._state.letters.values()}
            for id_ in ids:
                stages = {Stage.DEAD} if id_ in buried else set()
                for seq in self._state.by_id.get(id_, ()):
                    if seq in tickets:
                        stages.add(Stage.STARTED if tickets[seq] else Stage.LEASED)
                    else:
                        later = self._state.waiting.get(seq, 0.0) > now
                        stages.add(Stage.SCHEDULED if later else Stage.QUEUED)
                if stages:
                    found[id_] = max(stages, key=_ORDER.index)
        return found

    # --- dead letters --------------------------------------------------------------------------------------

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message that was never leased among the dead."""
        with self._state.changed:
            self._state.bury(message, reason, now)

    def browse(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return letters with a number above `after`, oldest first."""
        with self._state.changed:
            return [letter for number, letter in self._state.letters.items() if number > after][:limit]

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or ids; both None means all."""
        everything = numbers is None and ids is None
        with self._state.changed:
            return [
                letter
                for number, letter in self._state.letters.items()
                if everything or number in (numbers or ()) or letter.message.id in (ids or ())
            ]

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Send letters again; return how many."""
        sent = 0
        with self._state.changed:
            for number in sorted(set(numbers) & self._state.letters.keys()):
                letter = self._state.letters[number]
                if not self._insert([letter.message], now):
                    self._state.forget(letter.message.id)
                    del self._state.letters[number]
                    sent += 1
        return sent

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters; return how many there were."""
        with self._state.changed:
            return sum(self._state.letters.pop(number, None) is not None for number in set(numbers))


def _as_sent(stored: Stored) -> Message:
    sent = stored.message
    return Message(
        sent.id,
        sent.task,
        stored.queue,
        sent.head,
        sent.body,
        priority=sent.priority,
        expires=sent.expires,
        generation=sent.generation,
    )


def _delivery(held: Held) -> Delivery:
    stored, sent = held.stored, held.stored.message
    return Delivery(
        sent.id,
        sent.task,
        stored.queue,
        sent.head,
        sent.body,
        priority=sent.priority,
        due=stored.due,
        expires=sent.expires,
        generation=sent.generation,
        tag=stored.seq,
        token=held.token,
        crashes=stored.crashes,
        offers=stored.offers,
        ticket=held.ticket,
        former_owner=held.former,
        published=stored.published,
    )
