"""Dead letters: burying, browsing, reviving and dropping them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection

from umbel.core.message import DeadLetter, Message
from umbel.engines.sqlite import messages

_SELECT = """
SELECT number, id, task, queue, head, body, exchange, priority, expires, generation, reason, buried, crashes
FROM dead WHERE """


_LARGEST = 2**63 - 1


def printable(text: str) -> str:
    """Return the text with what is no Unicode (a lone surrogate) written as an escape, so that it can be stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def bury(connection: sqlite3.Connection, message: Message, reason: str, now: float) -> None:
    """Put a message among the dead."""
    connection.execute(
        "INSERT INTO dead (id, generation, queue, exchange, task, priority, expires, crashes, reason, buried, "
        "head, body) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
        (
            printable(message.id),
            message.generation,
            printable(message.queue),
            printable(message.exchange),
            printable(message.task),
            max(-_LARGEST, min(message.priority, _LARGEST)),
            0.0 if math.isnan(message.expires) else message.expires,
            printable(reason),
            now,
            message.head,
            message.body,
        ),
    )


def browse(connection: sqlite3.Connection, after: int, limit: int) -> list[DeadLetter]:
    """Return letters with a number above `after`, oldest first."""
    rows = connection.execute(
        _SELECT + "number > ? ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [_letter(*row) for row in rows]


def pick(
    connection: sqlite3.Connection, numbers: Collection[int] | None, ids: Collection[str] | None
) -> list[DeadLetter]:
    """Return the letters with these numbers or ids; both None means all."""
    rows = connection.execute(
        _SELECT + "?1 OR number IN (SELECT value FROM json_each(?2)) "  # noqa: S608 - constants
        "OR id IN (SELECT value FROM json_each(?3)) ORDER BY number",
        (numbers is None and ids is None, json.dumps(list(numbers or ())), json.dumps(list(ids or ()))),
    )
    return [_letter(*row) for row in rows]


def revive(
    connection: sqlite3.Connection,
    queues: messages.Queues,
    numbers: Collection[int],
    now: float,
) -> int:
    """Publish letters again and forget their results; what cannot be routed stays among the dead."""
    letters = pick(connection, list(numbers), None)
    refused = messages.insert(connection, queues, [letter.message for letter in letters], now)
    unroutable = {refusal.index for refusal in refused}
    sent = [letter for index, letter in enumerate(letters) if index not in unroutable]
    connection.executemany("DELETE FROM result WHERE id = ?", [(letter.message.id,) for letter in sent])
    drop(connection, [letter.number for letter in sent])
    return len(sent)


def drop(connection: sqlite3.Connection, numbers: Collection[int]) -> int:
    """Delete letters; return how many there were."""
    cursor = connection.executemany("DELETE FROM dead WHERE number = ?", [(number,) for number in numbers])
    return max(cursor.rowcount, 0)


def _letter(
    number: int,
    id_: str,
    task: str,
    queue: str,
    head: bytes,
    body: bytes,
    exchange: str,
    priority: int,
    expires: float,
    generation: int,
    reason: str,
    buried: float,
    crashes: int,
) -> DeadLetter:
    message = Message(
        id_,
        task,
        queue,
        head,
        body,
        exchange=exchange,
        priority=priority,
        expires=expires,
        generation=generation,
    )
    return DeadLetter(number, message, reason, buried, crashes)
