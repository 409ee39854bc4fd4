"""Messages on their way in: inserting them into their queues, whoever publishes (client, settlement, revival)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from umbel.core.errors import EncodeError, Unroutable
from umbel.core.message import Message
from umbel.core.queues import Queue
from umbel.engine.exchanges import resolve
from umbel.engine.seam import Refusal

#: A number is above all that are there and, being the time in microseconds, above those that were: what is left of
#: an old lease never fits a new message. (SQLite's AUTOINCREMENT would write one more page a transaction.)
#: Nothing but a conflict is passed over (OR IGNORE would drop a message whose time is NaN).
_INSERT = """
INSERT INTO message (id, generation, queue, task, priority, due, expires, published, head, body, seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, max(?, coalesce((SELECT max(seq) FROM message), 0) + 1))
ON CONFLICT (id, generation, queue) DO NOTHING"""

#: The same where the number is known to be above all others.
_INSERT_NUMBERED = """
INSERT INTO message (id, generation, queue, task, priority, due, expires, published, head, body, seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, generation, queue) DO NOTHING"""

_Row = tuple[str, int, int, str, int, float, float, float, bytes, bytes, int]


class Queues:
    """The numbers of the queues of one file, remembered while its connections stay open."""

    def __init__(self, openings: Callable[[], int]) -> None:
        #: Asked inside each transaction: it changes when a connection is opened or a transaction is given up.
        self._count_openings = openings
        self._numbers: dict[str, int] = {}
        self._openings = -1
        self._last = 0

    def numbers(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Return name → number of the queues known so far, from the file after a failure or a new connection."""
        openings = self._count_openings()
        if openings != self._openings:
            self._numbers = dict(connection.execute("SELECT name, id FROM queue").fetchall())
            self._openings = openings
        return self._numbers

    def reserve(self, now: float, count: int) -> int:
        """Return a number above every one that this process has given, with room for `count` after it.

        Call it inside a write transaction: those of one process take turns.
        """
        first = int(now * 1e6)
        if first <= self._last:
            first = self._last + 1
        self._last = first + count
        return first

    def find(self, connection: sqlite3.Connection, names: Iterable[str]) -> list[tuple[str, int]]:
        """Return (name, number) of those queues that exist."""
        numbers = self.numbers(connection)
        found = []
        for name in names:
            number = numbers.get(name)
            if number is None:
                row = connection.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()
                if row is None:
                    continue
                number = numbers[name] = row[0]
            found.append((name, number))
        return found

    def create(self, connection: sqlite3.Connection, name: str) -> int:
        """Return the number of a queue, made now unless it exists; call it inside a write transaction."""
        found = self.find(connection, (name,))
        if found:
            return found[0][1]
        number = connection.execute("INSERT INTO queue (name) VALUES (?)", (name,)).lastrowid
        assert number is not None
        self._numbers[name] = number
        return number


def insert(
    connection: sqlite3.Connection, queues: Queues, messages: Sequence[Message], now: float, *, careful: bool = False
) -> list[Refusal]:
    """Store messages as ready or scheduled; a message that is stored already is left alone.

    A value that cannot be stored raises one of `failures.UNSTORABLE`; called again with `careful`, such messages are
    refused and the others stored.
    """
    numbers = queues.numbers(connection)
    rows: list[_Row] = []
    refusals: list[Refusal] = []
    last_due = 0.0
    number_after = queues.reserve(now, len(messages))
    for index, message in enumerate(messages):
        if careful and (error := _unstorable(connection, message)) is not None:
            refusals.append(Refusal(index, error))
            continue
        if message.exchange:
            names = routes(connection, message)
            if not names:
                refusals.append(Refusal(index, unroutable(message)))
        else:
            names = (message.queue,)
        for name in names:
            number = numbers.get(name) or queues.create(connection, name)
            last_due = max(last_due, message.due)
            rows.append(
                (
                    message.id,
                    message.generation,
                    number,
                    message.task,
                    message.priority,
                    message.due,
                    message.expires,
                    now,
                    message.head,
                    message.body,
                    number_after + len(rows),
                )
            )
    if len(rows) == 1:
        _insert_one(connection, rows[0], now)
    elif rows:
        _insert_many(connection, rows, now, scheduled=last_due > now)
    return refusals


def _insert_one(connection: sqlite3.Connection, row: _Row, now: float) -> None:
    cursor = connection.execute(_INSERT, row)
    if cursor.rowcount < 1:
        return
    _, _, queue, _, priority, due, _, _, _, _, _ = row
    if due > now:
        connection.execute("INSERT INTO scheduled VALUES (?, ?, ?)", (due, cursor.lastrowid, queue))
    else:
        connection.execute("INSERT INTO ready VALUES (?, ?, ?)", (queue, -priority, cursor.lastrowid))


def _insert_many(connection: sqlite3.Connection, rows: list[_Row], now: float, *, scheduled: bool) -> None:
    after = connection.execute("SELECT coalesce(max(seq), 0) FROM message").fetchone()[0]
    if after >= rows[0][-1]:
        # Another process has given higher numbers: go on after them.
        rows = [(*row[:-1], after + place) for place, row in enumerate(rows, 1)]
    connection.executemany(_INSERT_NUMBERED, rows)
    connection.execute(
        "INSERT INTO ready SELECT queue, -priority, seq FROM message WHERE seq > ? AND due <= ?", (after, now)
    )
    if scheduled:
        connection.execute(
            "INSERT INTO scheduled SELECT due, seq, queue FROM message WHERE seq > ? AND due > ?",
            (after, now),
        )


def bind(connection: sqlite3.Connection, queue: Queue) -> None:
    """Remember how messages get into a queue."""
    for exchange, kind, key in queue.routes():
        connection.execute(
            "INSERT INTO exchange VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET type = excluded.type",
            (exchange, kind),
        )
        if not queue.no_declare:
            connection.execute("INSERT OR IGNORE INTO binding VALUES (?, ?, ?)", (exchange, key, queue.name))


def routes(connection: sqlite3.Connection, message: Message) -> Sequence[str]:
    """Return the names of the queues that a message reaches through its named exchange."""
    row = connection.execute("SELECT type FROM exchange WHERE name = ?", (message.exchange,)).fetchone()
    if row is None:
        return ()
    bindings = connection.execute(
        "SELECT routing_key, queue FROM binding WHERE exchange = ?", (message.exchange,)
    ).fetchall()
    return resolve(row[0], message.queue, bindings)


def _unstorable(connection: sqlite3.Connection, message: Message) -> EncodeError | None:
    """Return the error for a message that does not fit, found by handing its values to SQLite."""
    values = (
        *(message.id, message.task, message.queue, message.exchange, message.generation, message.priority),
        *(message.due, message.expires, message.head, message.body),
    )
    try:
        row = connection.execute("SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?", values).fetchone()
        why = "a time is not a number" if None in row else ""
    except (UnicodeEncodeError, OverflowError, sqlite3.Error) as error:
        why = str(error)
    if not why:
        return None
    return EncodeError(
        f"task {message.task!a}, id {message.id!a} cannot be stored ({why}): ids, names and queues must be valid "
        "Unicode, numbers must fit into 64 bits, and a message into a gigabyte"
    )


def unroutable(message: Message) -> Unroutable:
    """Return the error for a message that no queue is bound for."""
    return Unroutable(
        f"task {message.task}: exchange {message.exchange!r} has no queue bound for routing key {message.queue!r}; "
        "declare the queue (task_queues) or correct the route"
    )
