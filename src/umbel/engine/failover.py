"""Several servers of one kind, one of which is used: when it cannot be reached, the next that can takes its place.

A worker's leases stay where they were taken. After a change they count as lost, so that its session starts afresh at
the new server; what the old one held is delivered again once that is back. A message whose storing was in doubt
when the change came may be stored at both.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.message import Delivery, Depth, Joined, Message, Part, Record, Settlement, Stage
from umbel.core.queues import Queue
from umbel.engine.reaching import is_misconfigured, is_unreachable
from umbel.engine.seam import Engine, Lease, Listener, Refusal, Watch

__all__ = ["failover"]


def failover(urls: Sequence[str], open_one: Callable[[str], Engine], *, shuffle: bool = False) -> Engine:
    """Return an engine that uses the first of `urls` that can be reached; `shuffle`: try them in no fixed order."""
    servers = _Servers(urls, open_one, shuffle=shuffle)
    first = servers.engine(0)
    return replace(
        first,
        url=";".join(urls),
        broker=None if first.broker is None else _Broker(servers),
        store=None if first.store is None else _Store(servers),
        bus=None if first.bus is None else _Bus(servers),
        dead=None if first.dead is None else _Part(servers, "dead"),
        atomic=None if first.atomic is None else _Atomic(servers),
        # The processes of a worker may be at different servers.
        follow_ups=None,
    )


class _Servers:
    """The engines of all URLs, opened when they are first tried, and which one is used."""

    def __init__(self, urls: Sequence[str], open_one: Callable[[str], Engine], *, shuffle: bool) -> None:
        self._urls = list(urls)
        if shuffle:
            random.shuffle(self._urls)
        self._open_one = open_one
        self._shuffle = shuffle
        self._lock = threading.RLock()
        self._opened: dict[int, Engine] = {}
        self.current = 0
        self.queues: dict[str, Queue] = {}
        #: Where an owner's leases are.
        self.homes: dict[str, int] = {}

    def engine(self, index: int) -> Engine:
        """Return the engine of one URL."""
        found = self._opened.get(index)
        if found is None:
            with self._lock:
                found = self._opened.get(index) or self._opened.setdefault(index, self._open_one(self._urls[index]))
        return found

    def call(self, part: str, method: str, *args: Any) -> Any:
        """Call a method at the server in use; when it cannot be reached, at the next one that can."""
        index = self.current
        try:
            return getattr(getattr(self.engine(index), part), method)(*args)
        except OperationalError as error:
            if not (is_unreachable(error) or is_misconfigured(error)) or not self._change(index):
                raise
            if getattr(error, "maybe_done", False):
                raise
        return getattr(getattr(self.engine(self.current), part), method)(*args)

    def _change(self, index: int) -> bool:
        """Leave server `index` for another; False when none can be reached."""
        with self._lock:
            if self.current != index:
                return True
            others = [(index + step) % len(self._urls) for step in range(1, len(self._urls))]
            if self._shuffle:
                random.shuffle(others)
            for other in others:
                try:
                    broker = self.engine(other).broker
                    if broker is not None:
                        broker.declare(list(self.queues.values()))
                        broker.depth(list(self.queues)[:1] or ["celery"], 0.0)
                except OperationalError:
                    continue
                self.current = other
                return True
        return False

    def lost(self, owner: str) -> bool:
        """Tell whether the leases of `owner` are at a server that was left."""
        return self.homes.get(owner, self.current) != self.current

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            opened, self._opened = list(self._opened.values()), {}
        for engine in opened:
            engine.close()


class _Part:
    """Any part, its methods passed on."""

    def __init__(self, servers: _Servers, part: str) -> None:
        self._servers = servers
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self._servers.call(self._part, name, *args)

    def close(self) -> None:
        self._servers.close()


class _Broker:
    def __init__(self, servers: _Servers) -> None:
        self._servers = servers

    def declare(self, queues: Sequence[Queue]) -> None:
        known = self._servers.queues
        known.update({queue.name: queue for queue in queues if not queue.no_declare or queue.name not in known})
        self._servers.call("broker", "declare", queues)

    def remove(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            self._servers.queues.pop(queue.name, None)
        self._servers.call("broker", "remove", queues)

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        refused: list[Refusal] = self._servers.call("broker", "publish", messages, now)
        return refused

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        self._stay(lease.owner)
        taken: list[Delivery] = self._servers.call("broker", "lease", lease, now, wait)
        return taken

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        taken: list[Delivery] = self._servers.call("broker", "lease_scheduled", lease, now)
        return taken

    def wake(self) -> None:
        broker = self._servers.engine(self._servers.current).broker
        if broker is not None:
            broker.wake()

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        if self._servers.lost(owner):
            return [tag for tag, _token, _ticket in tickets]
        stale: list[Any] = self._servers.call("broker", "start", owner, tickets, now)
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        if self._servers.lost(owner):
            return False
        held: bool = self._servers.call("broker", "extend", owner, seconds, now)
        return held and not self._servers.lost(owner)

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        if self._servers.lost(owner):
            return [settlement.tag for settlement in settlements]
        stale: list[Any] = self._servers.call("broker", "settle", owner, settlements, now)
        return stale

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        self._stay(lease.owner)
        taken: list[Delivery] = self._servers.call("broker", "recover", lease, now)
        return taken

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        self._stay(lease.owner)
        held: list[Delivery] = self._servers.call("broker", "adopt", lease, deliveries, now)
        return held

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        found: dict[str, Depth] = self._servers.call("broker", "depth", queues, now)
        return found

    def purge(self, queues: Sequence[str]) -> int:
        count: int = self._servers.call("broker", "purge", queues)
        return count

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        found: dict[str, Stage] = self._servers.call("broker", "find", ids, now)
        return found

    def warnings(self) -> list[str]:
        """Return what the settings of the server in use mean, where its engine tells."""
        broker = self._servers.engine(self._servers.current).broker
        lines: list[str] = getattr(broker, "warnings", list)()
        return lines

    def close(self) -> None:
        self._servers.close()

    def _stay(self, owner: str) -> None:
        """Remember where an owner leases; once that server was left, it leases nowhere else."""
        self._servers.homes.setdefault(owner, self._servers.current)
        if self._servers.lost(owner):
            raise OperationalError("the broker has changed: the worker's session starts afresh at another one")


class _Store:
    def __init__(self, servers: _Servers) -> None:
        self._call = servers.call
        self._servers = servers

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        refused: list[str] = self._call("store", "put", records, now)
        return refused

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        found: dict[str, Record] = self._call("store", "get", ids, now)
        return found

    def watch(self) -> Watch:
        watch: Watch = self._call("store", "watch")
        return watch

    def forget(self, ids: Sequence[str]) -> None:
        self._call("store", "forget", ids)

    def expire(self, now: float, limit: int = 1000) -> int:
        count: int = self._call("store", "expire", now, limit)
        return count

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        ended: list[str] = self._call("store", "revoke", records, now)
        return ended

    def revoked(self, ids: Sequence[str]) -> set[str]:
        marked: set[str] = self._call("store", "revoked", ids)
        return marked

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        complete: list[Joined] = self._call("store", "join", parts, now, anew)
        return complete

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        complete: list[Joined] = self._call("store", "expect", sizes, now)
        return complete

    def confirm(self, groups: Collection[str]) -> None:
        self._call("store", "confirm", groups)

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        late: list[Joined] = self._call("store", "unconfirmed", before, limit)
        return late

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        payloads: dict[str, tuple[bytes, ...]] = self._call("store", "joined", groups)
        return payloads

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        self._call("store", "forget_groups", groups, expires)

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        first: int = self._call("store", "grow", group, by, now, key)
        return first

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        self._call("store", "put_plans", pieces, now, expires)

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        taken: dict[str, bytes] = self._call("store", "take_plans", keys, now, expires)
        return taken

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        self._call("store", "save_group", group, data, now, expires)

    def saved_group(self, group: str, now: float) -> bytes | None:
        saved: bytes | None = self._call("store", "saved_group", group, now)
        return saved

    def delete_group(self, group: str) -> None:
        self._call("store", "delete_group", group)

    def close(self) -> None:
        self._servers.close()


class _Bus:
    def __init__(self, servers: _Servers) -> None:
        self._servers = servers

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        self._servers.call("bus", "send", topic, payloads, now)

    def listen(self, topics: Sequence[str]) -> Listener:
        listener: Listener = self._servers.call("bus", "listen", topics)
        return listener

    def close(self) -> None:
        self._servers.close()


class _Atomic:
    def __init__(self, servers: _Servers) -> None:
        self._servers = servers

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        if self._servers.lost(owner):
            return [settlement.tag for settlement in settlements]
        stale: list[Any] = self._servers.call("atomic", "commit", owner, settlements, now)
        return stale
