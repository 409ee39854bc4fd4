"""Taking in messages that another broker has let go: stored as held already, so that nobody else starts them."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from umbel.core.message import Delivery
from umbel.engine.seam import Lease
from umbel.engines.sqlite import leases, messages, rows
from umbel.engines.sqlite.dead import printable

_INSERT = """
INSERT INTO message (id, generation, queue, task, priority, due, expires, published, crashes, offers, token, head,
                     body, seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, max(?, coalesce((SELECT max(seq) FROM message), 0) + 1))
ON CONFLICT (id, generation, queue) DO NOTHING RETURNING seq"""

_INSERT_NEW = """
INSERT INTO message (id, generation, queue, task, priority, due, expires, published, crashes, offers, token, head,
                     body, seq)"""
_NOT_TWICE = "ON CONFLICT (id, generation, queue) DO NOTHING"

_OUTLIVED = """
SELECT l.owner, l.seq FROM message AS m CROSS JOIN lease AS l ON l.seq = m.seq
WHERE m.id = ? AND m.generation = ? AND m.queue = ? AND l.token < ?"""

_HELD = """
SELECT l.seq, l.token FROM message AS m CROSS JOIN lease AS l ON l.owner = ? AND l.seq = m.seq
WHERE m.id = ? AND m.generation = ? AND m.queue = ?"""

_LARGEST = 2**63 - 1


def adopt(
    connection: sqlite3.Connection,
    queues: messages.Queues,
    lease: Lease,
    deliveries: Sequence[Delivery],
    now: float,
    *,
    careful: bool = False,
) -> list[Delivery]:
    """Store messages as leased; one that is stored already is returned only if `lease.owner` holds it.

    A lease with a lower token is over: its owner has let the message go, and it has come round again.
    With `careful`, what does not fit (no Unicode, numbers beyond 64 bits) is stored as what is nearest to it.
    """
    owner = leases.keep_owner(connection, lease.owner, now + lease.seconds)
    first = queues.reserve(now, len(deliveries))
    if not careful and len(deliveries) > 1:
        whole = _store_new(connection, deliveries, owner, queues, first, now)
        if whole is not None:
            return whole
    taken: list[Delivery] = []
    for place, delivery in enumerate(deliveries):
        stored = _storable(delivery) if careful else delivery
        queue = queues.create(connection, stored.queue)
        tag, token = _store(connection, stored, owner, queue, first + place, now)
        if tag:
            taken.append(msgspec.structs.replace(delivery, tag=tag, token=token))
    return taken


def _store_new(
    connection: sqlite3.Connection,
    deliveries: Sequence[Delivery],
    owner: int,
    queues: messages.Queues,
    first: int,
    now: float,
) -> list[Delivery] | None:
    """Store messages of which none is stored yet, as nearly always; None, with nothing changed, where one is."""
    first = max(first, (connection.execute("SELECT max(seq) FROM message").fetchone()[0] or 0) + 1)
    numbers = {name: queues.create(connection, name) for name in {delivery.queue for delivery in deliveries}}
    values = [(*_values(d, numbers[d.queue], now), first + place) for place, d in enumerate(deliveries)]
    connection.execute("SAVEPOINT new")
    if rows.insert(connection, _INSERT_NEW, values, _NOT_TWICE) != len(values):
        connection.execute("ROLLBACK TO new")
        connection.execute("RELEASE new")
        return None
    connection.execute("RELEASE new")
    held = [(owner, first + place, d.token, d.ticket, d.former_owner) for place, d in enumerate(deliveries)]
    rows.insert(connection, "INSERT INTO lease", held)
    return [msgspec.structs.replace(d, tag=first + place) for place, d in enumerate(deliveries)]


def _values(delivery: Delivery, queue: int, now: float) -> tuple[Any, ...]:
    return (
        *(delivery.id, delivery.generation, queue, delivery.task, delivery.priority, delivery.due),
        *(delivery.expires, delivery.published or now, delivery.crashes, delivery.offers, delivery.token),
        *(delivery.head, delivery.body),
    )


def _store(
    connection: sqlite3.Connection, delivery: Delivery, owner: int, queue: int, number: int, now: float
) -> tuple[int, int]:
    """Return tag and token under which `owner` holds the message now; zeros when somebody else has it."""
    values = (*_values(delivery, queue, now), number)
    added = connection.execute(_INSERT, values).fetchall()
    if not added and _end_outlived(connection, delivery, queue):
        added = connection.execute(_INSERT, values).fetchall()
    if added:
        row = (owner, added[0][0], delivery.token, delivery.ticket, delivery.former_owner)
        connection.execute("INSERT INTO lease VALUES (?, ?, ?, ?, ?)", row)
        return row[1:3]
    held = connection.execute(_HELD, (owner, delivery.id, delivery.generation, queue)).fetchall()
    if not held:
        return 0, 0
    tag, token = held[0]
    connection.execute("UPDATE lease SET ticket = ? WHERE owner = ? AND seq = ?", (delivery.ticket, owner, tag))
    return tag, token


def _end_outlived(connection: sqlite3.Connection, delivery: Delivery, queue: int) -> bool:
    rows = connection.execute(_OUTLIVED, (delivery.id, delivery.generation, queue, delivery.token)).fetchall()
    connection.executemany("DELETE FROM lease WHERE owner = ? AND seq = ?", rows)
    connection.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for _, seq in rows])
    return bool(rows)


def _storable(delivery: Delivery) -> Delivery:
    return msgspec.structs.replace(
        delivery,
        id=printable(delivery.id),
        task=printable(delivery.task),
        queue=printable(delivery.queue),
        generation=_bounded(delivery.generation),
        priority=_bounded(delivery.priority),
        due=0.0 if math.isnan(delivery.due) else delivery.due,
        expires=0.0 if math.isnan(delivery.expires) else delivery.expires,
        published=0.0 if math.isnan(delivery.published) else delivery.published,
    )


def _bounded(number: int) -> int:
    return max(-_LARGEST, min(number, _LARGEST))
