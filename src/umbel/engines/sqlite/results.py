"""Results and revocations as rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from umbel.core.followers import stands_alone
from umbel.core.message import Record
from umbel.core.states import READY_STATES

#: A state that changes gets a new number, never given before, so that a watch finds what is new by its number.
_CLEAR = "DELETE FROM result WHERE id = ? AND (final = 0 OR (expires > 0 AND expires <= ?))"
_STORE = "INSERT OR IGNORE INTO result (id, state, final, expires, meta) VALUES (?, ?, ?, ?, ?)"

_EXPIRE = (
    "DELETE FROM result WHERE seq IN (SELECT seq FROM result WHERE expires > 0 AND expires <= ? LIMIT ?)",
    "DELETE FROM revoked WHERE id IN (SELECT id FROM revoked WHERE expires > 0 AND expires <= ? LIMIT ?)",
    "DELETE FROM joining WHERE id IN (SELECT id FROM joining WHERE expires > 0 AND expires <= ? LIMIT ?)",
    "DELETE FROM piece WHERE seq IN (SELECT seq FROM piece WHERE expires > 0 AND expires <= ? LIMIT ?)",
    "DELETE FROM saved WHERE seq IN (SELECT seq FROM saved WHERE expires > 0 AND expires <= ? LIMIT ?)",
)
_HAS_EXPIRED = (
    "SELECT EXISTS (SELECT 1 FROM result WHERE expires > 0 AND expires <= ?1) "
    "OR EXISTS (SELECT 1 FROM revoked WHERE expires > 0 AND expires <= ?1) "
    "OR EXISTS (SELECT 1 FROM joining WHERE expires > 0 AND expires <= ?1) "
    "OR EXISTS (SELECT 1 FROM piece WHERE expires > 0 AND expires <= ?1) "
    "OR EXISTS (SELECT 1 FROM saved WHERE expires > 0 AND expires <= ?1)"
)


def put(connection: sqlite3.Connection, records: Sequence[Record], now: float) -> list[str]:
    """Store states in order; return the ids of those that met a terminal state."""
    keys = [(record.id, now) for record in records]
    rows = [(record.id, record.state, record.state in READY_STATES, record.expires, record.meta) for record in records]
    if len(rows) > 1:
        connection.execute("SAVEPOINT batch")
        connection.executemany(_CLEAR, keys)
        stored = connection.executemany(_STORE, rows).rowcount
        if stored < len(rows):
            connection.execute("ROLLBACK TO batch")
        connection.execute("RELEASE batch")
        if stored == len(rows):
            return []
    refused = []
    for key, row in zip(keys, rows, strict=True):
        connection.execute(_CLEAR, key)
        if connection.execute(_STORE, row).rowcount < 1:
            refused.append(row[0])
    return refused


def get(connection: sqlite3.Connection, ids: Sequence[str], now: float) -> dict[str, Record]:
    """Return the states that are known and not over."""
    if len(ids) == 1:
        rows = connection.execute("SELECT id, state, meta, expires FROM result WHERE id = ?", (ids[0],))
    else:
        rows = connection.execute(
            "SELECT r.id, r.state, r.meta, r.expires FROM json_each(?) AS j CROSS JOIN result AS r ON r.id = j.value",
            (json.dumps(list(ids)),),
        )
    return {row[0]: Record(*row) for row in rows if not 0 < row[3] <= now}


def forget(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Delete states."""
    connection.executemany("DELETE FROM result WHERE id = ?", [(id_,) for id_ in ids])


def expire(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """Delete up to `limit` states, revocations, pieces and groups whose time is over."""
    gone = 0
    for statement in _EXPIRE:
        if gone < limit:
            gone += connection.execute(statement, (now, limit - gone)).rowcount
    return gone


def has_expired(connection: sqlite3.Connection, now: float) -> bool:
    """Tell without the write lock whether `expire` would find something."""
    row = connection.execute(_HAS_EXPIRED, (now,)).fetchone()
    return bool(row[0])


def revoke(connection: sqlite3.Connection, records: Sequence[Record], now: float) -> list[str]:
    """Mark tasks as revoked; end those that wait."""
    ended = []
    for record in records:
        connection.execute(
            "INSERT INTO revoked VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET expires = excluded.expires",
            (record.id, record.expires),
        )
        if _end_waiting(connection, record.id):
            ended.append(record)
    put(connection, ended, now)
    return [record.id for record in ended]


def _end_waiting(connection: sqlite3.Connection, id_: str) -> bool:
    """Take the copies of a message that wait out of their queues; False when there was none or one is leased.

    One that something may follow from is made ready instead: the worker that gets it tells whoever waits for it.
    """
    rows = connection.execute("SELECT seq, queue, -priority, due, body FROM message WHERE id = ?", (id_,)).fetchall()
    waiting = 0
    for seq, queue, rank, due, body in rows:
        place = (queue, rank, seq)
        alone = stands_alone(body)
        if connection.execute("DELETE FROM scheduled WHERE due = ? AND seq = ?", (due, seq)).rowcount:
            waiting += 1
            if not alone:
                connection.execute("UPDATE message SET due = 0 WHERE seq = ?", (seq,))
                connection.execute("INSERT INTO ready (queue, rank, seq) VALUES (?, ?, ?)", place)
        elif connection.execute("SELECT 1 FROM ready WHERE queue = ? AND rank = ? AND seq = ?", place).fetchone():
            waiting += 1
            if alone:
                connection.execute("DELETE FROM ready WHERE queue = ? AND rank = ? AND seq = ?", place)
        else:
            continue
        if alone:
            connection.execute("DELETE FROM message WHERE seq = ?", (seq,))
    return 0 < waiting == len(rows)


def revoked(connection: sqlite3.Connection, ids: Collection[str]) -> set[str]:
    """Return which of the ids are marked; the common answer, none at all, costs one look."""
    if not connection.execute("SELECT 1 FROM revoked LIMIT 1").fetchone():
        return set()
    rows = connection.execute(
        "SELECT id FROM revoked WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    return {row[0] for row in rows}


def newest(connection: sqlite3.Connection) -> int:
    """Return the number of the newest result; 0 when there is none."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM result").fetchone()[0])


def changed_since(connection: sqlite3.Connection, seq: int) -> list[tuple[int, str]]:
    """Return (number, id) of the results that were stored after number `seq`."""
    return connection.execute("SELECT seq, id FROM result WHERE seq > ? ORDER BY seq", (seq,)).fetchall()


def any_known(connection: sqlite3.Connection, ids: Collection[str]) -> bool:
    """Tell whether a state is stored for one of the ids."""
    row = connection.execute(
        "SELECT 1 FROM json_each(?) AS j CROSS JOIN result AS r ON r.id = j.value LIMIT 1",
        (json.dumps(list(ids)),),
    ).fetchone()
    return row is not None
