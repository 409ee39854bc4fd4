"""Celery with json; tuned where that helps it: a large prefetch, no remote control."""

from __future__ import annotations

import os

from canvas import Canvas
from celery import Celery, chain, chord, group
from tick import late as was_late
from tick import tick

app = Celery("bench", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_RESULT_URL"])
app.conf.update(
    worker_prefetch_multiplier=128,
    worker_enable_remote_control=False,
    task_ignore_result=os.environ["BENCH_RESULTS"] != "1",
    broker_connection_retry_on_startup=True,
)
if os.environ.get("BENCH_CONFIRMS"):
    app.conf.broker_transport_options = {"confirm_publish": True}


@app.task
def noop() -> None:
    """Only say that it ran."""
    tick()


@app.task
def late(due: float) -> None:
    """Say that it ran, and how late."""
    was_late(due)


@app.task
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
