"""The tables of a SQLite file, their version, and the steps from one version to the next."""

from __future__ import annotations

import sqlite3

from umbel.core.errors import ImproperlyConfigured

#: "umbl": marks a file as ours, so that another program's database is never written to.
APPLICATION_ID = 0x756D626C

_VERSION_1 = """
CREATE TABLE queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE binding (
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, queue TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, queue)
) WITHOUT ROWID, STRICT;
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    queue INTEGER NOT NULL,
    task TEXT NOT NULL,
    priority INTEGER NOT NULL,
    due REAL NOT NULL,
    expires REAL NOT NULL,
    published REAL NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    offers INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    head BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_id ON message (id, generation, queue);
CREATE TABLE ready (
    queue INTEGER NOT NULL, rank INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (queue, rank, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE scheduled (
    due REAL NOT NULL, seq INTEGER NOT NULL, queue INTEGER NOT NULL,
    PRIMARY KEY (due, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE owner (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    deadline REAL NOT NULL,
    lost INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE lease (
    owner INTEGER NOT NULL, seq INTEGER NOT NULL, token INTEGER NOT NULL,
    ticket INTEGER NOT NULL, former TEXT NOT NULL,
    PRIMARY KEY (owner, seq)
) WITHOUT ROWID, STRICT;
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    queue TEXT NOT NULL,
    exchange TEXT NOT NULL,
    task TEXT NOT NULL,
    priority INTEGER NOT NULL,
    expires REAL NOT NULL,
    crashes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    buried REAL NOT NULL,
    head BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX dead_id ON dead (id);
CREATE TABLE result (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    final INTEGER NOT NULL,
    expires REAL NOT NULL,
    meta BLOB NOT NULL
) STRICT;
CREATE INDEX result_expires ON result (expires) WHERE expires > 0;
CREATE TABLE revoked (id TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID, STRICT;
CREATE INDEX revoked_expires ON revoked (expires) WHERE expires > 0;
CREATE TABLE joining (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    stage INTEGER NOT NULL,
    size INTEGER,
    last INTEGER,
    count INTEGER NOT NULL DEFAULT 0,
    expires REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX joining_expires ON joining (expires) WHERE expires > 0;
CREATE TABLE part (joining INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX part_position ON part (joining, position);
CREATE TABLE bus (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, sent REAL NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE INDEX bus_sent ON bus (sent);
"""

_VERSION_2 = """
CREATE TABLE copy (queue TEXT PRIMARY KEY, deadline REAL NOT NULL) WITHOUT ROWID, STRICT;
"""

_VERSION_3 = """
ALTER TABLE joining ADD COLUMN grown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE joining ADD COLUMN since REAL NOT NULL DEFAULT 0;
ALTER TABLE joining ADD COLUMN body BLOB;
CREATE INDEX joining_since ON joining (since) WHERE stage = 1;
CREATE TABLE growth (
    joining INTEGER NOT NULL, name TEXT NOT NULL, first INTEGER NOT NULL,
    PRIMARY KEY (joining, name)
) WITHOUT ROWID, STRICT;
CREATE TABLE piece (
    seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, expires REAL NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE INDEX piece_expires ON piece (expires) WHERE expires > 0;
CREATE TABLE saved (
    seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, expires REAL NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE INDEX saved_expires ON saved (expires) WHERE expires > 0;
"""

#: Step n brings a file from version n to version n + 1.
MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3)

VERSION = len(MIGRATIONS)


def check(connection: sqlite3.Connection, file: str) -> bool:
    """True when the file is of our version, False when it must be brought there.

    Raises ImproperlyConfigured for a file of a newer umbel or of another program.
    """
    version, mark, tables = _look(connection)
    if mark == APPLICATION_ID:
        if version > VERSION:
            raise ImproperlyConfigured(
                f"{file} was written by a newer umbel (schema {version}; this one knows up to {VERSION}): "
                "upgrade umbel here, or use another file"
            )
        return version == VERSION
    if mark != 0 or version != 0 or tables:
        raise ImproperlyConfigured(f"{file} is a SQLite database of another program: give umbel a file of its own")
    return False


def migrate(connection: sqlite3.Connection, file: str) -> None:
    """Bring the file to the current version; call it inside a write transaction."""
    if check(connection, file):
        return
    version = _pragma(connection, "user_version")
    for step in MIGRATIONS[version:]:
        for statement in filter(None, (part.strip() for part in step.split(";"))):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _look(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return version, mark and number of tables, all of one moment: another process may be migrating."""
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    try:
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        return _pragma(connection, "user_version"), _pragma(connection, "application_id"), tables
    finally:
        if alone:
            connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
