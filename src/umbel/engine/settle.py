"""Settling outcomes: one transaction where broker and store are one database, else the order that loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.message import Settlement
from umbel.engine.seam import Broker, Engine, Store

__all__ = ["commit"]


def commit(
    engine: Engine, store: Engine | None, owner: str, settlements: Sequence[Settlement], now: float
) -> list[Any]:
    """Apply records, parts, follow-ups and ends of leases; return the tags whose lease was not held any more.

    `engine` holds the messages, `store` the results (None: results go nowhere). Where both are one engine that can,
    an outcome is applied whole or, stale, not at all. Elsewhere the order is store, join, publish, confirm,
    acknowledge: a crash in between repeats a step and loses none, since follow-ups have deterministic ids, terminal
    states never change, and a part that completed its group completes it again until that is confirmed.
    Parts need a store.
    """
    if engine.atomic is not None and engine is store:
        return engine.atomic.commit(owner, settlements, now)
    broker = _broker_of(engine)
    records = [settlement.record for settlement in settlements if settlement.record is not None]
    if records and store is not None and store.store is not None:
        store.store.put(records, now)
    parts = [part for settlement in settlements for part in settlement.parts]
    complete = _store_of(store).join(parts, now) if parts else []
    follow_ups = [message for settlement in settlements for message in settlement.publish]
    follow_ups += [joined.body for joined in complete if joined.body is not None]
    if follow_ups:
        for refusal in broker.publish(follow_ups, now):
            if engine.dead is None:
                raise refusal.error
            engine.dead.bury(follow_ups[refusal.index], str(refusal.error), now)
    if complete:
        _store_of(store).confirm([joined.group for joined in complete])
    return broker.settle(owner, settlements, now)


def _broker_of(engine: Engine) -> Broker:
    if engine.broker is None:
        raise OperationalError("this engine has no broker: name one that has in broker_url")
    return engine.broker


def _store_of(engine: Engine | None) -> Store:
    if engine is None or engine.store is None:
        raise OperationalError("tasks that join (a chord) need a place for their results: set result_backend")
    return engine.store
