"""Many rows in few statements.

Python's sqlite3 lets go of the interpreter for every row that a statement is run with, and has to wait for its turn
among busy threads each time: in a worker, where three threads are busy, that takes longer than the statement itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

__all__ = ["as_json", "insert"]

#: How many rows a statement may have, most first: few forms, so that all of them stay prepared.
_SIZES = (64, 16, 4, 1)

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=64)
def _values(width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return ", ".join([row] * count)


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], or_else: str = "") -> int:
    """Insert rows; return how many were. `into` begins the statement, `or_else` is its ON CONFLICT clause.

    >>> insert(connection, "INSERT INTO ready", [(1, 0, 7), (1, 0, 8)])
    2
    """
    inserted = at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            some = rows[at : at + size]
            statement = f"{into} VALUES {_values(len(some[0]), size)} {or_else}"
            inserted += connection.execute(statement, tuple(chain.from_iterable(some))).rowcount
            at += size
    return inserted


def as_json(values: Sequence[Any]) -> str:
    """Return values for `json_each(?)`."""
    return _encode(values).decode()
