"""umbel with its defaults, on whatever the URL names."""

from __future__ import annotations

import os

from canvas import Canvas
from tick import late as was_late
from tick import tick

from umbel import Umbel, chain, chord, group

URL = os.environ["BENCH_URL"]
app = Umbel("bench", broker=URL, backend=os.environ["BENCH_RESULT_URL"])


@app.task(ignore_result=True)
def noop() -> None:
    """Only say that it ran."""
    tick()


@app.task(ignore_result=True)
def late(due: float) -> None:
    """Say that it ran, and how late."""
    was_late(due)


@app.task(ignore_result=True)
def large(_data: str) -> None:
    """Take a large argument."""
    tick()


@app.task
def add(left: int, right: int) -> int:
    """Say that it ran, and give a result."""
    tick()
    return left + right


@app.task
def total(values: list[int]) -> int:
    """Add up the results of others."""
    tick()
    return sum(values)


def send_noop() -> object:
    """Enqueue one task whose result nobody wants."""
    return noop.delay()


def send_add(number: int) -> object:
    """Enqueue one task with a result; returns its handle."""
    return add.delay(number, 1)


def send_bulk(count: int) -> None:
    """Enqueue many tasks in one call."""
    noop.delay_many(() for _ in range(count))


def send_delayed(count: int, seconds: float) -> None:
    """Enqueue many tasks that are due later."""
    noop.apply_async_many((((), {}) for _ in range(count)), countdown=seconds)


def send_late(seconds: float, due: float) -> None:
    """Enqueue one task that is due in so many seconds, at `due`."""
    late.apply_async((due,), countdown=seconds)


def send_large(data: str) -> None:
    """Enqueue one task with a large argument."""
    large.delay(data)


def read(handle: object) -> object:
    """Wait for the result of a handle."""
    return handle.get(timeout=60)  # type: ignore[attr-defined]


canvas = Canvas(add, total, chain, chord, group)
run_chord, run_chain = canvas.run_chord, canvas.run_chain
send_group, run_chords = canvas.send_group, canvas.run_chords
