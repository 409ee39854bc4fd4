"""huey: on SQLite with its default durability, on Redis with `notify_result`; pickle; results where measured."""

from __future__ import annotations

import os

from huey import RedisHuey, SqliteHuey, group
from tick import late as was_late
from tick import tick

URL = os.environ["BENCH_URL"]
RESULTS = os.environ["BENCH_RESULTS"] == "1"
ON_REDIS = URL.startswith("redis")
if ON_REDIS:
    huey = RedisHuey("bench", url=URL, results=RESULTS, notify_result=RESULTS)
else:
    huey = SqliteHuey("bench", filename=URL.removeprefix("sqlite:///"), results=RESULTS)


@huey.task()
def noop() -> None:
    """Only say that it ran."""
    tick()


@huey.task()
def late(due: float) -> None:
    """Say that it ran, and how late."""
    was_late(due)


@huey.task()
def large(_data: str) -> None:
    """Take a large argument."""
    tick()


@huey.task()
def add(left: int, right: int) -> int:
    """Say that it ran, and give a result."""
    tick()
    return left + right


@huey.task()
def total(values: list[int]) -> int:
    """Add up the results of others."""
    tick()
    return sum(values)


def send_noop() -> object:
    """Enqueue one task whose result nobody wants."""
    return noop()


def send_add(number: int) -> object:
    """Enqueue one task with a result; returns its handle."""
    return add(number, 1)


def send_late(seconds: float, due: float) -> None:
    """Enqueue one task that is due in so many seconds, at `due`."""
    late.schedule(args=(due,), delay=seconds)


def send_large(data: str) -> None:
    """Enqueue one task with a large argument."""
    large(data)


def read(handle: object) -> object:
    """Wait for the result of a handle: told by Redis; on SQLite by looking every millisecond."""
    if ON_REDIS:
        return handle.get(blocking=True, timeout=60)  # type: ignore[attr-defined]
    return handle.get(blocking=True, timeout=60, max_delay=0.001)  # type: ignore[attr-defined]


def run_chord(count: int) -> object:
    """Add so many times, then add up; returns the sum."""
    return read(huey.enqueue(group([add.s(number, 1) for number in range(count)]).then(total)))


def run_chain(count: int) -> object:
    """Add one to what the step before gives, so many times; returns the last value."""
    pipeline = add.s(0, 1)
    for _ in range(count - 1):
        pipeline = pipeline.then(add, 1)
    return huey.enqueue(pipeline).get(blocking=True, timeout=60)[-1]
