"""Which deliveries are revoked, by their id or by a stamp."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.core.message import Delivery
from umbel.core.stamps import marks_of
from umbel.engine.seam import Store
from umbel.worker.admission import Admitted

__all__ = ["revoked_among", "revoked_meanwhile"]


def revoked_among(store: Store | None, deliveries: Sequence[Delivery]) -> set[str]:
    """Return the ids of those that are revoked."""
    if store is None:
        return set()
    stamped = {delivery.id: marks for delivery in deliveries if (marks := marks_of(delivery.head))}
    ids = [delivery.id for delivery in deliveries]
    if not stamped:
        return store.revoked(ids)
    revoked = store.revoked([*ids, *{mark for marks in stamped.values() for mark in marks}])
    return revoked | {id_ for id_, marks in stamped.items() if not revoked.isdisjoint(marks)}


def revoked_meanwhile(store: Store | None, started: Sequence[Delivery]) -> list[Admitted]:
    """Return those that are revoked, to be concluded."""
    ids = revoked_among(store, started) if started else ()
    return [Admitted(delivery, "revoked", "revoked") for delivery in started if delivery.id in ids]
