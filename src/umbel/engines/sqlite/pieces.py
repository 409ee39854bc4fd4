"""Pieces of workflows and saved groups of results: bytes under a name, as rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping

_CLEAR = "DELETE FROM piece WHERE name = ? AND expires > 0 AND expires <= ?"
_PUT = "INSERT OR IGNORE INTO piece (name, expires, data) VALUES (?, ?, ?)"
_TAKE = """
UPDATE piece SET expires = ?1
WHERE name IN (SELECT value FROM json_each(?2)) AND NOT (expires > 0 AND expires <= ?3) RETURNING name, data"""
_SAVE = "INSERT OR REPLACE INTO saved (name, expires, data) VALUES (?, ?, ?)"
_SAVED = "SELECT data FROM saved WHERE name = ? AND NOT (expires > 0 AND expires <= ?)"


def put(connection: sqlite3.Connection, pieces: Mapping[str, bytes], now: float, expires: float) -> None:
    """Keep pieces until `expires` (0: until they are taken); what is there already stays."""
    connection.executemany(_CLEAR, [(name, now) for name in pieces])
    connection.executemany(_PUT, [(name, expires, data) for name, data in pieces.items()])


def take(connection: sqlite3.Connection, names: Collection[str], now: float, expires: float) -> dict[str, bytes]:
    """Read pieces, which may go at `expires`."""
    return dict(connection.execute(_TAKE, (expires, json.dumps(list(names)), now)).fetchall())


def save(connection: sqlite3.Connection, name: str, data: bytes, expires: float) -> None:
    """Keep a group of results until `expires`."""
    connection.execute(_SAVE, (name, expires, data))


def saved(connection: sqlite3.Connection, name: str, now: float) -> bytes | None:
    """Return a group of results that was saved."""
    row = connection.execute(_SAVED, (name, now)).fetchone()
    return None if row is None else bytes(row[0])


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Delete a saved group of results."""
    connection.execute("DELETE FROM saved WHERE name = ?", (name,))
