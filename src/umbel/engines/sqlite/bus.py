"""The bus of a SQLite file: rows that listeners read once, swept after a minute."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence

from umbel.engines.sqlite import bells
from umbel.engines.sqlite.bells import Bell, Ringer
from umbel.engines.sqlite.database import Database

#: Seconds that a payload stays for listeners that are slow.
_KEPT = 60.0


class SqliteBus:
    """Fan-out of control messages: Bus of `umbel.engine.seam` over one file."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        """Send payloads to every listener of `topic`."""
        self._database.write(_send, topic, payloads, now)
        self._ringer.ring(bells.BUS)

    def listen(self, topics: Sequence[str]) -> SqliteListener:
        """Open a listener that hears what is sent from now on."""
        return SqliteListener(self._database, tuple(topics))

    def close(self) -> None:
        """Let go of connections."""
        self._ringer.close()
        self._database.close()


def _send(connection: sqlite3.Connection, topic: str, payloads: Sequence[bytes], now: float) -> None:
    connection.execute("DELETE FROM bus WHERE sent < ?", (now - _KEPT,))
    connection.executemany(
        "INSERT INTO bus (topic, sent, payload) VALUES (?, ?, ?)",
        [(topic, now, payload) for payload in payloads],
    )


def _newest(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'bus'").fetchone()
    return 0 if row is None else int(row[0])


class SqliteListener:
    """One ear on the bus."""

    def __init__(self, database: Database, topics: tuple[str, ...]) -> None:
        self._database = database
        self._topics = json.dumps(topics)
        self._bell = Bell(database.location.bells, bells.BUS, secrets.token_hex(16))
        self._seen = database.read(_newest)

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        """Return (topic, payload) pairs sent since the last call; wait up to `timeout` seconds for one."""
        deadline = time.monotonic() + timeout
        while True:
            woken = self._bell.drain()
            heard = self._database.read(self._look)
            left = deadline - time.monotonic()
            if heard or woken or left <= 0:
                return heard
            self._bell.wait(left)

    def _look(self, connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
        rows = connection.execute(
            "SELECT seq, topic, payload FROM bus WHERE seq > ? AND topic IN (SELECT value FROM json_each(?)) "
            "ORDER BY seq",
            (self._seen, self._topics),
        ).fetchall()
        if rows:
            self._seen = rows[-1][0]
        return [(topic, payload) for _, topic, payload in rows]

    def wake(self) -> None:
        """End a `receive` of another thread, or its next one."""
        self._bell.wake()

    def close(self) -> None:
        """Stop listening."""
        self._bell.close()
