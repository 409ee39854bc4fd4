"""The result store and the bus of a memory engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from umbel.core.message import Joined, Part, Record
from umbel.engines.memory.joins import Group
from umbel.engines.memory.state import State


class MemoryStore:
    """Where results and revocations live: Store of `umbel.engine.seam` in plain dictionaries."""

    def __init__(self, state: State) -> None:
        self._state = state

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        """Store states; return the ids whose terminal state stays."""
        with self._state.changed:
            return [record.id for record in records if not self._state.put(record, now)]

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        """Read states; unknown and expired ids are left out."""
        with self._state.changed:
            known = {id_: self._state.records[id_] for id_ in ids if id_ in self._state.records}
        return {id_: record for id_, record in known.items() if not 0 < record.expires <= now}

    def watch(self) -> MemoryWatch:
        """Open a watch."""
        return MemoryWatch(self._state)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete states."""
        with self._state.changed:
            for id_ in ids:
                self._state.forget(id_)

    def expire(self, now: float, limit: int = 1000) -> int:
        """Drop what is over, up to `limit` of it; return how many."""
        state, gone = self._state, 0
        with state.changed:
            for kept, forget in (
                ({id_: record.expires for id_, record in state.records.items()}, state.forget),
                (state.revoked, state.revoked.pop),
                ({name: group.expires for name, group in state.groups.items()}, state.groups.pop),
                ({key: piece[1] for key, piece in state.plans.items()}, state.plans.pop),
                ({name: saved[1] for name, saved in state.saved.items()}, state.saved.pop),
            ):
                over = [name for name, expires in kept.items() if 0 < expires <= now][: limit - gone]
                gone += len(over)
                for name in over:
                    forget(name)
        return gone

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        """Mark tasks as revoked, end those that wait; return the ids that this ended."""
        ended = []
        with self._state.changed:
            for record in records:
                self._state.revoked[record.id] = record.expires
                copies = [self._state.messages[seq] for seq in self._state.by_id.get(record.id, ())]
                waiting = sum(self._state.end_waiting(stored, now) for stored in copies)
                if 0 < waiting == len(copies):
                    self._state.put(record, now)
                    ended.append(record.id)
        return ended

    def revoked(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids are marked as revoked."""
        with self._state.changed:
            return self._state.revoked.keys() & set(ids)

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        """Store parts; return the groups that this completed."""
        with self._state.changed:
            for part in parts if anew else ():
                self._state.groups.pop(part.group, None)
            return self._state.join(parts, now)

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Store the sizes of groups; return the groups that this completed."""
        with self._state.changed:
            told = []
            for name, size in sizes.items():
                group = self._state.group(name, now)
                if group.expect(size):
                    group.since = group.since or now
                    told.append(Joined(name, group.in_order(), group.body))
            return told

    def confirm(self, groups: Collection[str]) -> None:
        """Tell nobody again that these groups are complete."""
        with self._state.changed:
            for name in groups:
                group = self._state.groups.get(name)
                if group is not None:
                    group.confirm()

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        """Return groups that were completed before this time and are not confirmed."""
        with self._state.changed:
            groups = self._state.groups.items()
            late = [(g.since, name, g.body) for name, g in groups if g.complete and g.body and g.since < before]
            return [Joined(name, (), body) for _, name, body in sorted(late, key=lambda each: each[0])[:limit]]

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the payloads of those groups that are complete."""
        with self._state.changed:
            known = {name: self._state.groups.get(name) for name in groups}
            return {name: group.in_order() for name, group in known.items() if group is not None and group.complete}

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Delete the parts of groups, which stay closed until `expires`."""
        with self._state.changed:
            for name in groups:
                self._state.groups.pop(name, None)
                if expires:
                    self._state.groups[name] = Group(confirmed=True, expires=expires)

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        """Let a group have more members; return the index of the first of them."""
        with self._state.changed:
            return self._state.group(group, now).grow(by, key)

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        """Keep pieces of workflows; what is there already stays."""
        with self._state.changed:
            plans = self._state.plans
            plans.update({key: (data, expires) for key, data in pieces.items() if not _holds(plans.get(key), now)})

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        """Read pieces, which may go at `expires`."""
        with self._state.changed:
            plans = self._state.plans
            found = {key: plans[key][0] for key in keys if _holds(plans.get(key), now)}
            plans.update({key: (data, expires) for key, data in found.items()})
            return found

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        """Keep what `GroupResult.save` writes."""
        del now
        with self._state.changed:
            self._state.saved[group] = data, expires

    def saved_group(self, group: str, now: float) -> bytes | None:
        """Return what was saved."""
        with self._state.changed:
            saved = self._state.saved.get(group)
            return saved[0] if saved is not None and _holds(saved, now) else None

    def delete_group(self, group: str) -> None:
        """Delete what was saved."""
        with self._state.changed:
            self._state.saved.pop(group, None)


def _holds(kept: tuple[bytes, float] | None, now: float) -> bool:
    """Tell whether something is kept whose time is not over."""
    return kept is not None and not 0 < kept[1] <= now


class _Waiter:
    """A wait on the state's condition that another thread can end, once."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._woken = False

    def wait_for(self, look: Callable[[], bool], timeout: float) -> bool:
        """Wait until `look` (called with the lock held) is true; False when it is not in time, or on `wake`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not look():
                left = deadline - time.monotonic()
                woken, self._woken = self._woken, False
                if woken or left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def wake(self) -> None:
        """End the wait of another thread, or its next one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()


class MemoryWatch(_Waiter):
    """One wait for results."""

    def __init__(self, state: State) -> None:
        super().__init__(state.changed)
        self._state = state
        #: Watched id → the change that this watch has told of.
        self._seen: dict[str, int] = {}

    def add(self, ids: Collection[str]) -> None:
        """Begin to watch the ids; the next wait ends at once when one of them has a state already."""
        with self._changed:
            for id_ in ids:
                self._seen.setdefault(id_, 0)

    def discard(self, ids: Collection[str]) -> None:
        """Stop watching the ids."""
        with self._changed:
            for id_ in ids:
                self._seen.pop(id_, None)

    def wait(self, timeout: float) -> bool:
        """Wait until a watched result may have changed (True) or the time is over or `wake` was called (False)."""
        return self.wait_for(self._look, timeout)

    def _look(self) -> bool:
        news = {
            id_: self._state.changes[id_] for id_, seen in self._seen.items() if self._state.changes.get(id_, 0) > seen
        }
        self._seen.update(news)
        return bool(news)

    def close(self) -> None:
        """Watch nothing any more."""
        with self._changed:
            self._seen.clear()


class MemoryBus:
    """Fan-out of control messages inside one process: Bus of `umbel.engine.seam`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        """Send payloads to every listener of `topic`."""
        del now
        with self._state.changed:
            for wanted, hear in self._state.ears:
                if wanted == topic:
                    hear(topic, payloads)
            self._state.changed.notify_all()

    def listen(self, topics: Sequence[str]) -> MemoryListener:
        """Open a listener that hears what is sent from now on."""
        return MemoryListener(self._state, topics)


class MemoryListener(_Waiter):
    """One ear on the bus."""

    def __init__(self, state: State, topics: Sequence[str]) -> None:
        super().__init__(state.changed)
        self._state = state
        self._heard: list[tuple[str, bytes]] = []
        self._ears = [(topic, self._hear) for topic in dict.fromkeys(topics)]
        with state.changed:
            state.ears += self._ears

    def _hear(self, topic: str, payloads: Sequence[bytes]) -> None:
        self._heard += [(topic, payload) for payload in payloads]

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        """Return (topic, payload) pairs sent since the last call; wait up to `timeout` seconds for one."""
        self.wait_for(lambda: bool(self._heard), timeout)
        with self._changed:
            heard, self._heard = self._heard, []
            return heard

    def close(self) -> None:
        """Stop listening."""
        with self._changed:
            self._state.ears = [ear for ear in self._state.ears if ear not in self._ears]
