"""Where messages are and how many: depth, find and purge."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from umbel.core.message import Depth, Stage

#: How many messages one transaction of a purge deletes.
_CHUNK = 5000

_FIND = """
SELECT m.id,
    EXISTS (SELECT 1 FROM ready AS r WHERE r.queue = m.queue AND r.rank = -m.priority AND r.seq = m.seq),
    EXISTS (SELECT 1 FROM scheduled AS s WHERE s.due = m.due AND s.seq = m.seq AND s.due > ?),
    (SELECT l.ticket FROM owner AS o CROSS JOIN lease AS l ON l.owner = o.id AND l.seq = m.seq)
FROM json_each(?) AS j CROSS JOIN message AS m ON m.id = j.value"""

#: Where copies of a message are in several places, the later of these is told.
_ORDER = (Stage.DEAD, Stage.SCHEDULED, Stage.QUEUED, Stage.LEASED, Stage.STARTED)


def depth(connection: sqlite3.Connection, queues: Sequence[str], now: float) -> dict[str, Depth]:
    """Count the messages of each queue; no names means every queue."""
    names: dict[int, str] = dict(connection.execute("SELECT id, name FROM queue ORDER BY name").fetchall())
    counts = {name: Depth() for name in queues or names.values()}
    for number, ready in connection.execute("SELECT queue, count(*) FROM ready GROUP BY queue"):
        if names[number] in counts:
            counts[names[number]].ready = ready
    for number, is_due, scheduled in connection.execute(
        "SELECT queue, due <= ? AS is_due, count(*) FROM scheduled GROUP BY queue, is_due", (now,)
    ):
        if names[number] in counts:
            if is_due:
                counts[names[number]].ready += scheduled
            else:
                counts[names[number]].scheduled += scheduled
    for number, leased in connection.execute(
        "SELECT m.queue, count(*) FROM lease AS l CROSS JOIN message AS m ON m.seq = l.seq GROUP BY m.queue"
    ):
        if names[number] in counts:
            counts[names[number]].leased = leased
    return counts


def purge(connection: sqlite3.Connection, queue: str) -> int:
    """Delete some of the ready and scheduled messages of a queue; return how many, 0 when none is left."""
    row = connection.execute("SELECT id FROM queue WHERE name = ?", (queue,)).fetchone()
    if row is None:
        return 0
    ready = connection.execute(
        "DELETE FROM ready WHERE queue = ?1 AND (rank, seq) IN "
        "(SELECT rank, seq FROM ready WHERE queue = ?1 LIMIT ?2) RETURNING seq",
        (row[0], _CHUNK),
    ).fetchall()
    scheduled = connection.execute(
        "DELETE FROM scheduled WHERE (due, seq) IN (SELECT due, seq FROM scheduled WHERE queue = ? LIMIT ?) "
        "RETURNING seq",
        (row[0], _CHUNK - len(ready)),
    ).fetchall()
    connection.executemany("DELETE FROM message WHERE seq = ?", ready + scheduled)
    return len(ready) + len(scheduled)


def find(connection: sqlite3.Connection, ids: Collection[str], now: float) -> dict[str, Stage]:
    """Tell where the messages are; a scheduled one that is due by now is queued."""
    wanted = json.dumps(list(ids))
    found: dict[str, Stage] = {}
    for (id_,) in connection.execute(
        "SELECT d.id FROM json_each(?) AS j CROSS JOIN dead AS d ON d.id = j.value", (wanted,)
    ):
        found[id_] = Stage.DEAD
    for id_, ready, scheduled, ticket in connection.execute(_FIND, (now, wanted)):
        if ticket is not None:
            stage = Stage.STARTED if ticket else Stage.LEASED
        else:
            stage = Stage.QUEUED if ready or not scheduled else Stage.SCHEDULED
        known = found.get(id_)
        if known is None or _ORDER.index(stage) > _ORDER.index(known):
            found[id_] = stage
    return found
