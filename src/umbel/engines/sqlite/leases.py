"""Leases: taking ready messages, promoting what is due, marking starts, extending, and taking over."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from umbel.core.message import Delivery
from umbel.engine.seam import Lease

#: In the order of the fields of Delivery.
_TAKE = """
SELECT m.id, m.task, ?2, m.head, m.body, '', m.priority, m.due, m.expires, m.generation,
       m.seq, m.token + 1, m.crashes, m.offers, 0, '', m.published
FROM ready AS r CROSS JOIN message AS m ON m.seq = r.seq
WHERE r.queue = ?1 ORDER BY r.rank, r.seq LIMIT ?3"""

_TAKE_SOME = _TAKE.replace("ORDER BY", "AND m.task NOT IN (SELECT value FROM json_each(?4)) ORDER BY")

_SCHEDULED = _TAKE.replace("ready AS r", "scheduled AS r").replace("r.rank, r.seq", "r.due, r.seq")

_HOLD = "INSERT INTO lease VALUES (?, ?, ?, 0, '')"

_TAKE_OVER = """
SELECT m.id, m.task, q.name, m.head, m.body, '', m.priority, m.due, m.expires, m.generation,
       m.seq, l.token + 1, m.crashes, m.offers, l.ticket, iif(l.former = '', ?2, l.former), m.published
FROM lease AS l CROSS JOIN message AS m ON m.seq = l.seq CROSS JOIN queue AS q ON q.id = m.queue
WHERE l.owner = ?1 AND (?3 OR q.name IN (SELECT value FROM json_each(?4)))
ORDER BY l.seq LIMIT ?5"""

#: How many messages one lease promotes at most, so that a flood of due ones does not hold the write lock.
_PROMOTE = 2000

_KEEP_OWNER = """
INSERT INTO owner (name, deadline) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET deadline = excluded.deadline RETURNING id"""

#: Seconds after which an owner that holds nothing is forgotten.
_FORGET_OWNER = 3600.0


def next_due(connection: sqlite3.Connection) -> float | None:
    """Return when the next scheduled message is due (one look at the head of the index)."""
    row = connection.execute("SELECT due FROM scheduled ORDER BY due LIMIT 1").fetchone()
    return None if row is None else row[0]


def worth_leasing(
    connection: sqlite3.Connection, queues: Iterable[tuple[str, int]], lease: Lease, began: float, now: float
) -> bool:
    """Tell without the write lock whether there is something to take, to promote, or leases to keep alive.

    `began` is when the call began: waiting does not move the deadline of an owner again and again.
    """
    for _, number in queues:
        if connection.execute("SELECT 1 FROM ready WHERE queue = ? LIMIT 1", (number,)).fetchone():
            return True
    due = next_due(connection)
    if due is not None and due <= now:
        return True
    held = connection.execute(
        "SELECT 1 FROM owner AS o WHERE name = ? AND deadline < ? "
        "AND EXISTS (SELECT 1 FROM lease AS l WHERE l.owner = o.id)",
        (lease.owner, began + lease.seconds),
    )
    return held.fetchone() is not None


def promote(connection: sqlite3.Connection, now: float) -> None:
    """Make ready what is due."""
    due = next_due(connection)
    if due is None or due > now:
        return
    rows = connection.execute(
        "SELECT s.queue, -m.priority, s.seq, s.due FROM scheduled AS s CROSS JOIN message AS m ON m.seq = s.seq "
        "WHERE s.due <= ? ORDER BY s.due LIMIT ?",
        (now, _PROMOTE),
    ).fetchall()
    connection.executemany("INSERT INTO ready VALUES (?, ?, ?)", [row[:3] for row in rows])
    connection.executemany("DELETE FROM scheduled WHERE due = ? AND seq = ?", [(row[3], row[2]) for row in rows])


def take(connection: sqlite3.Connection, queues: Sequence[tuple[str, int]], lease: Lease, now: float) -> list[Delivery]:
    """Lease up to the limit: each queue its share first, then whoever has more."""
    promote(connection, now)
    owner = keep_owner(connection, lease.owner, now + lease.seconds)
    share = -(-lease.limit // len(queues)) if queues else 0
    taken: list[Delivery] = []
    more: list[tuple[str, int]] = []
    for queue in queues:
        got = _take_from(connection, queue, owner, min(share, lease.limit - len(taken)), lease.without)
        taken += got
        if len(got) == share:
            more.append(queue)
    for queue in more if len(queues) > 1 else ():
        if len(taken) < lease.limit:
            taken += _take_from(connection, queue, owner, lease.limit - len(taken), lease.without)
    return taken


def take_scheduled(
    connection: sqlite3.Connection, queues: Sequence[tuple[str, int]], lease: Lease, now: float
) -> list[Delivery]:
    """Lease up to the limit of what is not due yet."""
    promote(connection, now)
    taken: list[Delivery] = []
    for name, number in queues:
        taken += [Delivery(*row) for row in connection.execute(_SCHEDULED, (number, name, lease.limit - len(taken)))]
    if taken:
        owner = keep_owner(connection, lease.owner, now + lease.seconds)
        connection.executemany(
            "DELETE FROM scheduled WHERE due = ? AND seq = ?", [(each.due, each.tag) for each in taken]
        )
        connection.executemany(_HOLD, [(owner, each.tag, each.token) for each in taken])
    return taken


def keep_owner(connection: sqlite3.Connection, name: str, deadline: float) -> int:
    """Keep an owner alive until `deadline`; return its number."""
    return int(connection.execute(_KEEP_OWNER, (name, deadline)).fetchall()[0][0])


def _take_from(
    connection: sqlite3.Connection, queue: tuple[str, int], owner: int, limit: int, without: tuple[str, ...]
) -> list[Delivery]:
    if limit <= 0:
        return []
    name, number = queue
    if without:
        rows = connection.execute(_TAKE_SOME, (number, name, limit, json.dumps(without)))
    else:
        rows = connection.execute(_TAKE, (number, name, limit))
    taken = [Delivery(*row) for row in rows]
    if not taken:
        return taken
    if without:
        connection.executemany(
            "DELETE FROM ready WHERE queue = ? AND rank = ? AND seq = ?",
            [(number, -delivery.priority, delivery.tag) for delivery in taken],
        )
    else:
        # What was taken is the beginning of the index, so one range per priority removes it.
        last = {-delivery.priority: delivery.tag for delivery in taken}
        for rank, seq in last.items():
            connection.execute("DELETE FROM ready WHERE queue = ? AND rank = ? AND seq <= ?", (number, rank, seq))
    connection.executemany(_HOLD, [(owner, delivery.tag, delivery.token) for delivery in taken])
    return taken


def number_of(connection: sqlite3.Connection, owner: str) -> int:
    """Return the number of an owner; 0 (which no owner has) when it is unknown."""
    row = connection.execute("SELECT id FROM owner WHERE name = ?", (owner,)).fetchone()
    return 0 if row is None else int(row[0])


def held(connection: sqlite3.Connection, owner: int, tags: Iterable[Any]) -> dict[int, int]:
    """Return tag → token of those messages that `owner` holds."""
    wanted = [tag for tag in tags if type(tag) is int]
    if len(wanted) == 1:
        rows = connection.execute("SELECT seq, token FROM lease WHERE owner = ? AND seq = ?", (owner, wanted[0]))
    else:
        rows = connection.execute(
            "SELECT l.seq, l.token FROM json_each(?) AS j CROSS JOIN lease AS l ON l.owner = ? AND l.seq = j.value",
            (json.dumps(wanted), owner),
        )
    return dict(rows.fetchall())


def start(connection: sqlite3.Connection, owner: str, tickets: Sequence[tuple[Any, int, int]]) -> list[Any]:
    """Write the tickets of the held messages; return the tags of the others."""
    number = number_of(connection, owner)
    rows = [(ticket, number, tag, token) for tag, token, ticket in tickets if type(tag) is int]
    marked = connection.executemany(
        "UPDATE lease SET ticket = ?, former = '' WHERE owner = ? AND seq = ? AND token = ?", rows
    ).rowcount
    if marked == len(tickets):
        return []
    tokens = held(connection, number, (tag for tag, _, _ in tickets))
    return [tag for tag, token, _ in tickets if tokens.get(tag) != token]


def is_idle(connection: sqlite3.Connection, owner: str) -> bool:
    """Tell whether the owner has nothing to extend, and nothing was taken from it."""
    row = connection.execute(
        "SELECT lost OR EXISTS (SELECT 1 FROM lease AS l WHERE l.owner = o.id) FROM owner AS o WHERE name = ?",
        (owner,),
    ).fetchone()
    return row is None or not row[0]


def extend(connection: sqlite3.Connection, owner: str, deadline: float) -> bool:
    """Set the deadline of an owner; return False, once, when something was taken from it.

    Both in one transaction: a worker that is frozen between the two would never hear of it.
    """
    row = connection.execute("SELECT lost FROM owner WHERE name = ?", (owner,)).fetchone()
    connection.execute("UPDATE owner SET deadline = ?, lost = 0 WHERE name = ?", (deadline, owner))
    return row is None or not row[0]


def candidates(connection: sqlite3.Connection, except_owner: str) -> list[tuple[int, str, float]]:
    """Return (number, name, deadline) of the owners that hold leases."""
    return connection.execute(
        "SELECT id, name, deadline FROM owner AS o "
        "WHERE name <> ? AND EXISTS (SELECT 1 FROM lease AS l WHERE l.owner = o.id) ORDER BY id",
        (except_owner,),
    ).fetchall()


def take_over(
    connection: sqlite3.Connection, lease: Lease, now: float, is_dead: Callable[[str], bool]
) -> tuple[list[Delivery], list[str]]:
    """Give messages of lapsed and dead owners to `lease.owner`; also return which dead owners hold nothing more."""
    heir = keep_owner(connection, lease.owner, now + lease.seconds)
    taken: list[Delivery] = []
    emptied: list[str] = []
    for number, name, deadline in candidates(connection, lease.owner):
        dead = is_dead(name)
        if not dead and deadline > now:
            continue
        limit = lease.limit - len(taken)
        everything = not lease.queues
        rows = connection.execute(
            _TAKE_OVER, (number, name, everything, json.dumps(list(lease.queues)), limit)
        ).fetchall()
        got = _without_early(connection, number, [Delivery(*row) for row in rows], now)
        connection.executemany(
            "UPDATE lease SET owner = ?, token = ?, former = ? WHERE owner = ? AND seq = ?",
            [(heir, delivery.token, delivery.former_owner, number, delivery.tag) for delivery in got],
        )
        if rows:
            connection.execute("UPDATE owner SET lost = 1 WHERE id = ?", (number,))
        if dead and not connection.execute("SELECT 1 FROM lease WHERE owner = ? LIMIT 1", (number,)).fetchone():
            emptied.append(name)
        taken += got
        if len(taken) >= lease.limit:
            break
    connection.execute(
        "DELETE FROM owner WHERE deadline < ? AND NOT EXISTS (SELECT 1 FROM lease AS l WHERE l.owner = owner.id)",
        (now - _FORGET_OWNER,),
    )
    return taken, emptied


def _without_early(connection: sqlite3.Connection, owner: int, found: list[Delivery], now: float) -> list[Delivery]:
    """Put back what was taken before its time (`take_scheduled`); return the rest."""
    early = [each for each in found if each.due > now]
    if not early:
        return found
    connection.executemany("DELETE FROM lease WHERE owner = ? AND seq = ?", [(owner, each.tag) for each in early])
    connection.executemany(
        "INSERT INTO scheduled SELECT due, seq, queue FROM message WHERE seq = ?", [(each.tag,) for each in early]
    )
    return [each for each in found if each.due <= now]
