"""Celery on Redis with json; tuned where that helps it: a large prefetch, no remote control."""

from __future__ import annotations

import os

from celery import Celery
from tick import tick

URL = os.environ["BENCH_URL"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    worker_prefetch_multiplier=128,
    worker_enable_remote_control=False,
    task_ignore_result=os.environ["BENCH_RESULTS"] != "1",
    broker_connection_retry_on_startup=True,
)


@app.task
def noop() -> None:
    """Only say that it ran."""
    tick()


@app.task
def add(left: int, right: int) -> int:
    """Say that it ran, and give a result."""
    tick()
    return left + right


def send_noop() -> object:
    """Enqueue one task whose result nobody wants."""
    return noop.delay()


def send_add(number: int) -> object:
    """Enqueue one task with a result; returns its handle."""
    return add.delay(number, 1)


def read(handle: object) -> object:
    """Wait for the result of a handle."""
    return handle.get(timeout=60)  # type: ignore[attr-defined]
