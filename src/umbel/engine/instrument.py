"""The failpoints around the protocols: put on once, when an engine is opened, so that engines contain none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umbel.core.message import Delivery, Joined, Message, Part, Record, Settlement
from umbel.engine.failpoints import failpoint
from umbel.engine.seam import Atomic, Broker, Bus, Engine, FollowUps, Gone, Lease, Pieces, Refusal, Store

__all__ = ["instrument"]


def instrument(engine: Engine) -> Engine:
    """Return the engine with a failpoint before and after everything that changes something."""
    return replace(
        engine,
        broker=None if engine.broker is None else _Broker(engine.broker),
        store=None if engine.store is None else _Store(engine.store),
        bus=None if engine.bus is None else _Bus(engine.bus),
        atomic=None if engine.atomic is None else _Atomic(engine.atomic),
        follow_ups=None if engine.follow_ups is None else _FollowUps(engine.follow_ups),
    )


def _close(part: object) -> None:
    close = getattr(part, "close", None)
    if close is not None:
        close()


class _Broker:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.declare = broker.declare
        self.remove = broker.remove
        self.wake = broker.wake
        self.lease_scheduled = broker.lease_scheduled
        self.depth = broker.depth
        self.purge = broker.purge
        self.find = broker.find
        #: What the server's settings mean, where an engine tells.
        self.warnings = getattr(broker, "warnings", list)

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        failpoint("publish.before")
        refused = self._broker.publish(messages, now)
        failpoint("publish.after")
        return refused

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        failpoint("lease.before")
        taken = self._broker.lease(lease, now, wait)
        failpoint("lease.after")
        return taken

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        failpoint("start.before")
        stale = self._broker.start(owner, tickets, now)
        failpoint("start.after")
        return stale

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        failpoint("extend.before")
        held = self._broker.extend(owner, seconds, now)
        failpoint("extend.after")
        return held

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        failpoint("settle.before")
        stale = self._broker.settle(owner, settlements, now)
        failpoint("settle.after")
        return stale

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        failpoint("recover.before")
        taken = self._broker.recover(lease, now)
        failpoint("recover.after")
        return taken

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        failpoint("adopt.before")
        held = self._broker.adopt(lease, deliveries, now)
        failpoint("adopt.after")
        return held

    def close(self) -> None:
        _close(self._broker)


class _Store:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.get = store.get
        self.watch = store.watch
        self.forget = store.forget
        self.expire = store.expire
        self.revoked = store.revoked
        self.joined = store.joined
        self.warnings = getattr(store, "warnings", list)
        self.unconfirmed = store.unconfirmed
        self.saved_group = store.saved_group
        self.save_group = store.save_group
        self.delete_group = store.delete_group

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        failpoint("put.before")
        refused = self._store.put(records, now)
        failpoint("put.after")
        return refused

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        failpoint("revoke.before")
        ended = self._store.revoke(records, now)
        failpoint("revoke.after")
        return ended

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        failpoint("join.before")
        complete = self._store.join(parts, now, anew)
        failpoint("join.after")
        return complete

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        failpoint("expect.before")
        complete = self._store.expect(sizes, now)
        failpoint("expect.after")
        return complete

    def confirm(self, groups: Collection[str]) -> None:
        failpoint("confirm.before")
        self._store.confirm(groups)
        failpoint("confirm.after")

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        failpoint("forget.before")
        self._store.forget_groups(groups, expires)
        failpoint("forget.after")

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        failpoint("grow.before")
        first = self._store.grow(group, by, now, key)
        failpoint("grow.after")
        return first

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        failpoint("plan.before")
        self._store.put_plans(pieces, now, expires)
        failpoint("plan.after")

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        failpoint("take.before")
        taken = self._store.take_plans(keys, now, expires)
        failpoint("take.after")
        return taken

    def close(self) -> None:
        _close(self._store)


class _Bus:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.listen = bus.listen

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        failpoint("send.before")
        self._bus.send(topic, payloads, now)
        failpoint("send.after")

    def close(self) -> None:
        _close(self._bus)


class _Atomic:
    def __init__(self, atomic: Atomic) -> None:
        self._atomic = atomic

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        failpoint("settle.before")
        stale = self._atomic.commit(owner, settlements, now)
        failpoint("settle.after")
        return stale


class _FollowUps:
    def __init__(self, follow_ups: FollowUps) -> None:
        self._follow_ups = follow_ups

    def leased(self, settlement: Settlement) -> Delivery | None:
        return self._follow_ups.leased(settlement)

    def go_on(
        self, owner: str, lane: str, ticket: int, settlement: Settlement, now: float, pieces: Pieces | None = None
    ) -> Gone:
        failpoint("settle.before")
        gone = self._follow_ups.go_on(owner, lane, ticket, settlement, now, pieces)
        failpoint("settle.after")
        return gone

    def pack_tag(self, tag: Any) -> bytes:
        return self._follow_ups.pack_tag(tag)

    def unpack_tag(self, data: bytes) -> Any:
        return self._follow_ups.unpack_tag(data)
