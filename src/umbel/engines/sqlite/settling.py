"""The ends of leases, and the transaction that applies a whole outcome: record, follow-ups, parts and end together."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from umbel.core.message import End, Settlement
from umbel.engines.sqlite import joins, leases, messages, results
from umbel.engines.sqlite.dead import bury, printable
from umbel.engines.sqlite.rows import as_json

_END = """
DELETE FROM lease WHERE owner = ? AND (seq, token) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

_FORGET = "DELETE FROM message WHERE seq IN (SELECT value FROM json_each(?))"


class Settled(NamedTuple):
    """What a settlement did, as far as others have to be told."""

    stale: list[Any]
    returned: bool
    recorded: bool


def settle(
    connection: sqlite3.Connection, owner: str, settlements: Sequence[Settlement], now: float
) -> tuple[Sequence[Settlement], Settled]:
    """End the leases that `owner` still holds; return those settlements and what happened."""
    number = leases.number_of(connection, owner)
    valid, stale = _end_leases(connection, number, settlements)
    finished = [settlement.tag for settlement in valid if settlement.end is End.DONE]
    connection.execute(_FORGET, (as_json(finished),))
    returned = False
    if len(finished) < len(valid):
        for settlement in valid:
            if settlement.end is End.DEAD:
                _bury(connection, settlement, now)
            elif settlement.end is not End.DONE:
                _put_back(connection, settlement, now)
                returned = True
    return valid, Settled(stale, returned, recorded=False)


def _end_leases(
    connection: sqlite3.Connection, owner: int, settlements: Sequence[Settlement]
) -> tuple[Sequence[Settlement], list[Any]]:
    """Remove the leases that are held with the right token; return those settlements and the tags of the others.

    Nearly always all are held, which the number of removed rows tells; only else each is looked at.
    """
    if all(type(settlement.tag) is int for settlement in settlements):
        connection.execute("SAVEPOINT ends")
        if _end(connection, owner, settlements) == len(settlements):
            connection.execute("RELEASE ends")
            return settlements, []
        connection.execute("ROLLBACK TO ends")
        connection.execute("RELEASE ends")
    tokens = leases.held(connection, owner, (settlement.tag for settlement in settlements))
    valid: list[Settlement] = []
    stale: list[Any] = []
    for settlement in settlements:
        if tokens.get(settlement.tag) == settlement.token:
            del tokens[settlement.tag]
            valid.append(settlement)
        else:
            stale.append(settlement.tag)
    _end(connection, owner, valid)
    return valid, stale


def _end(connection: sqlite3.Connection, owner: int, settlements: Sequence[Settlement]) -> int:
    """Remove the leases that are held with the right token; return how many were."""
    held = as_json([(settlement.tag, settlement.token) for settlement in settlements])
    return connection.execute(_END, (owner, held)).rowcount


def _put_back(connection: sqlite3.Connection, settlement: Settlement, now: float) -> None:
    due = 0.0 if settlement.end is End.RELEASE else settlement.due
    queue, rank = connection.execute(
        "UPDATE message SET token = ?, due = ?, crashes = crashes + ?, offers = offers + ? WHERE seq = ? "
        "RETURNING queue, -priority",
        (
            settlement.token,
            due,
            settlement.end is End.CRASHED,
            settlement.end is End.OFFER,
            settlement.tag,
        ),
    ).fetchall()[0]
    if due > now:
        connection.execute("INSERT INTO scheduled VALUES (?, ?, ?)", (due, settlement.tag, queue))
    else:
        connection.execute("INSERT INTO ready VALUES (?, ?, ?)", (queue, rank, settlement.tag))


def _bury(connection: sqlite3.Connection, settlement: Settlement, now: float) -> None:
    connection.execute(
        "INSERT INTO dead (id, generation, queue, exchange, task, priority, expires, crashes, reason, buried, "
        "head, body) SELECT m.id, m.generation, q.name, '', m.task, m.priority, m.expires, m.crashes, ?, ?, "
        "m.head, m.body FROM message AS m JOIN queue AS q ON q.id = m.queue WHERE m.seq = ?",
        (printable(settlement.reason), now, settlement.tag),
    )
    connection.execute("DELETE FROM message WHERE seq = ?", (settlement.tag,))


def commit(
    connection: sqlite3.Connection,
    queues: messages.Queues,
    owner: str,
    settlements: Sequence[Settlement],
    now: float,
    *,
    careful: bool = False,
) -> Settled:
    """Apply outcomes whole. A follow-up that no queue is bound for becomes a dead letter: it was promised.

    One that cannot be stored raises (see `messages.insert`); with `careful` it becomes a dead letter as well, and the
    name of a state that is no Unicode is stored with escapes.
    """
    valid, settled = settle(connection, owner, settlements, now)
    records = [settlement.record for settlement in valid if settlement.record is not None]
    if careful:
        records = [msgspec.structs.replace(record, state=printable(record.state)) for record in records]
    if records:
        results.put(connection, records, now)
    follow_ups = [message for settlement in valid for message in settlement.publish]
    parts = [part for settlement in valid for part in settlement.parts]
    if parts:
        complete = joins.add(connection, parts, now)
        joins.confirm(connection, complete.keys())
        follow_ups += [body for body in complete.values() if body is not None]
    if follow_ups:
        for refusal in messages.insert(connection, queues, follow_ups, now, careful=careful):
            bury(connection, follow_ups[refusal.index], str(refusal.error), now)
    return Settled(settled.stale, settled.returned or bool(follow_ups), bool(records))
