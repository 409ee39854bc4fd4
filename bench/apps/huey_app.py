"""huey on SQLite: write-ahead log and its default durability, pickle; results only where they are measured."""

from __future__ import annotations

import os

from huey import SqliteHuey
from tick import tick

FILE = os.environ["BENCH_URL"].removeprefix("sqlite:///")
huey = SqliteHuey("bench", filename=FILE, results=os.environ["BENCH_RESULTS"] == "1")


@huey.task()
def noop() -> None:
    """Only say that it ran."""
    tick()


@huey.task()
def add(left: int, right: int) -> int:
    """Say that it ran, and give a result."""
    tick()
    return left + right


def send_noop() -> object:
    """Enqueue one task whose result nobody wants."""
    return noop()


def send_add(number: int) -> object:
    """Enqueue one task with a result; returns its handle."""
    return add(number, 1)


def read(handle: object) -> object:
    """Wait for the result of a handle, looking every millisecond."""
    return handle.get(blocking=True, timeout=60, max_delay=0.001)  # type: ignore[attr-defined]
