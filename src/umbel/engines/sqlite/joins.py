"""Groups and their parts as rows: counted by index, complete once, closed for late repeats when forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from umbel.core.message import GROWN, Joined, Message, Part, joinable, pack_message, unpack_message

#: Stages of a group: 0 open, 1 complete, 2 confirmed, 3 forgotten. `last` is the index that completed it, NULL where
#: its size did; `count` is the number of parts that count, kept as soon as `size` is known so that no join counts the
#: parts again: those below `size`, and of the members that came later (`grown` many, see GROWN). `body` is the first
#: one that a part brought, kept until it is confirmed that it is published; `since` is when the group was complete.
_OPEN, _COMPLETE = 0, 1

_GET = """
SELECT id, stage, size, last, grown, body IS NULL FROM joining
WHERE name = ? AND NOT (expires > 0 AND expires <= ?)"""
_ADD = "INSERT OR IGNORE INTO part (joining, position, payload) VALUES (?, ?, ?)"
_RECOUNT = """
UPDATE joining SET count = (
    SELECT count(*) FROM part WHERE joining = joining.id
    AND (position BETWEEN 0 AND size - 1 OR position BETWEEN ?2 AND ?2 + grown - 1))
WHERE id = ?1 AND size IS NOT NULL"""
_COUNT = "UPDATE joining SET count = count + 1 WHERE id = ?"
_FINISH = "UPDATE joining SET stage = 1, last = ?, since = ? WHERE id = ? AND count = size + grown"
_BODY = "UPDATE joining SET body = ? WHERE id = ?"
_CONFIRM = "UPDATE joining SET stage = 2, body = NULL WHERE stage = 1 AND name IN (SELECT value FROM json_each(?))"
_LATE = """
SELECT name, body FROM joining
WHERE stage = 1 AND since < ? AND body IS NOT NULL ORDER BY since LIMIT ?"""
_PAYLOADS = """
SELECT j.name, p.payload FROM joining AS j
LEFT JOIN part AS p ON p.joining = j.id
    AND (p.position BETWEEN 0 AND j.size - 1 OR p.position BETWEEN ?2 AND ?2 + j.grown - 1)
WHERE j.stage IN (1, 2) AND j.name IN (SELECT value FROM json_each(?1)) ORDER BY j.id, p.position"""
_FORGET_PARTS = """
DELETE FROM part
WHERE joining IN (SELECT id FROM joining WHERE name IN (SELECT value FROM json_each(?)))"""
_FORGET_GROWTH = _FORGET_PARTS.replace("FROM part", "FROM growth")
_FORGET = "DELETE FROM joining WHERE name IN (SELECT value FROM json_each(?))"
_CLOSE = "INSERT OR IGNORE INTO joining (name, stage, expires) VALUES (?, 3, ?)"
_GROWN = "SELECT first FROM growth WHERE joining = ? AND name = ?"
_GROW = "UPDATE joining SET grown = grown + ? WHERE id = ?"

_Row = tuple[int, int, int | None, int | None, int, bool]


def join(connection: sqlite3.Connection, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
    """Store parts; return the groups that this completed, and those whose completing part was repeated."""
    if anew:
        forget(connection, [part.group for part in joinable(parts)], 0.0)
    complete = add(connection, parts, now)
    found = payloads(connection, complete)
    return [Joined(name, found[name], body) for name, body in complete.items()]


def add(connection: sqlite3.Connection, parts: Sequence[Part], now: float) -> dict[str, Message | None]:
    """Store parts; return the bodies of groups that this completed, now or when the same part was stored first."""
    complete: dict[str, Message | None] = {}
    for part in joinable(parts):
        known = _open(connection, part.group, now)
        number, stage, _size, last, _grown, bare = known
        if bare and part.body is not None and stage <= _COMPLETE:
            connection.execute(_BODY, (pack_message(part.body), number))
        if (stage == _COMPLETE and last == part.index) or (stage == _OPEN and _add(connection, known, part, now)):
            complete.setdefault(part.group, part.body or _body(connection, number))
    return complete


def _body(connection: sqlite3.Connection, number: int) -> Message | None:
    data = connection.execute("SELECT body FROM joining WHERE id = ?", (number,)).fetchone()[0]
    return None if data is None else unpack_message(data)


def expect(connection: sqlite3.Connection, sizes: Mapping[str, int], now: float) -> list[Joined]:
    """Store the sizes of groups; return the groups that this completed."""
    joined = []
    for name, wanted in sizes.items():
        number, stage, size, last, *_ = _open(connection, name, now)
        if stage == _OPEN:
            if size is None:
                _resize(connection, number, wanted)
            told = connection.execute(_FINISH, (None, now, number)).rowcount > 0
        else:
            told = stage == _COMPLETE and last is None
        if told:
            joined.append(Joined(name, payloads(connection, [name])[name], _body(connection, number)))
    return joined


def grow(connection: sqlite3.Connection, name: str, by: int, now: float, key: str) -> int:
    """Let an open group have `by` members more; return the first index, that of a known key as it was told first."""
    number, stage, _size, _last, grown, _bare = _open(connection, name, now)
    known = connection.execute(_GROWN, (number, key)).fetchone() if key else None
    if known is not None:
        return int(known[0])
    if stage == _OPEN:
        connection.execute(_GROW, (by, number))
        connection.execute(_RECOUNT, (number, GROWN))
        if key:
            connection.execute("INSERT INTO growth VALUES (?, ?, ?)", (number, key, GROWN + grown))
    return GROWN + grown


def _open(connection: sqlite3.Connection, name: str, now: float) -> _Row:
    row: _Row | None = connection.execute(_GET, (name, now)).fetchone()
    if row is not None:
        return row
    forget(connection, [name], 0.0)
    number = connection.execute("INSERT INTO joining (name, stage) VALUES (?, ?)", (name, _OPEN)).lastrowid
    assert number is not None
    return number, _OPEN, None, None, 0, True


def _resize(connection: sqlite3.Connection, number: int, size: int) -> None:
    connection.execute("UPDATE joining SET size = ? WHERE id = ?", (size, number))
    connection.execute(_RECOUNT, (number, GROWN))


def _add(connection: sqlite3.Connection, known: _Row, part: Part, now: float) -> bool:
    """Add a part to an open group; True when that completed it."""
    number, _stage, size, _last, grown, _bare = known
    new = connection.execute(_ADD, (number, part.index, part.payload)).rowcount > 0
    if size is None:
        if part.size is None:
            return False
        _resize(connection, number, part.size)
    elif new and (0 <= part.index < size or GROWN <= part.index < GROWN + grown):
        connection.execute(_COUNT, (number,))
    return connection.execute(_FINISH, (part.index, now, number)).rowcount > 0


def confirm(connection: sqlite3.Connection, groups: Collection[str]) -> None:
    """Tell nobody again that these groups are complete."""
    connection.execute(_CONFIRM, _list(groups))


def unconfirmed(connection: sqlite3.Connection, before: float, limit: int) -> list[Joined]:
    """Return groups that were completed before this time and are not confirmed, without payloads."""
    return [Joined(name, (), unpack_message(body)) for name, body in connection.execute(_LATE, (before, limit))]


def payloads(connection: sqlite3.Connection, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
    """Return the payloads of those groups that are complete, all of one moment: one statement reads them."""
    found: dict[str, list[bytes]] = {}
    for name, payload in connection.execute(_PAYLOADS, (*_list(groups), GROWN)):
        known = found.setdefault(name, [])
        if payload is not None:
            known.append(payload)
    return {name: tuple(known) for name, known in found.items()}


def forget(connection: sqlite3.Connection, groups: Collection[str], expires: float) -> None:
    """Delete the parts of groups, which stay closed until `expires`."""
    names = _list(groups)
    connection.execute(_FORGET_PARTS, names)
    connection.execute(_FORGET_GROWTH, names)
    connection.execute(_FORGET, names)
    if expires:
        connection.executemany(_CLOSE, [(name, expires) for name in groups])


def _list(groups: Collection[str]) -> tuple[str]:
    return (json.dumps(list(groups)),)
