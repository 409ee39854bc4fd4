"""Copies of Broadcast queues: each is one worker's alone and goes with it, or an hour after it has died."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from umbel.core.queues import COPY_UNUSED


def note(connection: sqlite3.Connection, name: str) -> None:
    """Remember that a queue is a copy. Until somebody looks at the clock it has no deadline (0)."""
    connection.execute("INSERT INTO copy VALUES (?, 0) ON CONFLICT (queue) DO UPDATE SET deadline = 0", (name,))


def exist(connection: sqlite3.Connection) -> bool:
    """Tell whether there are copies at all."""
    return connection.execute("SELECT 1 FROM copy LIMIT 1").fetchone() is not None


def keep(connection: sqlite3.Connection, names: Collection[str], now: float) -> None:
    """Keep the copies of this process for another while; remove those whose workers are gone."""
    found = connection.execute("SELECT queue, deadline FROM copy").fetchall()
    until = [(now + COPY_UNUSED, name) for name, deadline in found if name in names or not deadline]
    connection.executemany("UPDATE copy SET deadline = ? WHERE queue = ?", until)
    remove(connection, [name for name, deadline in found if name not in names and 0 < deadline <= now])


def remove(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Delete queues with their bindings, messages and leases."""
    for name in names:
        connection.execute("DELETE FROM copy WHERE queue = ?", (name,))
        connection.execute("DELETE FROM binding WHERE queue = ?", (name,))
        row = connection.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()
        if row is None:
            continue
        connection.execute("DELETE FROM lease WHERE seq IN (SELECT seq FROM message WHERE queue = ?)", row)
        for table in ("ready", "scheduled", "message"):
            connection.execute(f"DELETE FROM {table} WHERE queue = ?", row)  # noqa: S608 - one of three names
