"""dramatiq with its default middleware; results, kept in Redis, only where they are measured."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from tick import late as was_late
from tick import tick

URL = os.environ["BENCH_URL"]
RESULTS = os.environ["BENCH_RESULTS"] == "1"
broker = RabbitmqBroker(url=URL) if URL.startswith("amqp") else RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_RESULT_URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Only say that it ran."""
    tick()


@dramatiq.actor
def late(due: float) -> None:
    """Say that it ran, and how late."""
    was_late(due)


@dramatiq.actor
def large(_data: str) -> None:
    """Take a large argument."""
    tick()


@dramatiq.actor(**({"store_results": True} if RESULTS else {}))
def add(left: int, right: int) -> int:
    """Say that it ran, and give a result."""
    tick()
    return left + right


def send_noop() -> object:
    """Enqueue one task whose result nobody wants."""
    return noop.send()


def send_add(number: int) -> object:
    """Enqueue one task with a result; returns its handle."""
    return add.send(number, 1)


def send_late(seconds: float, due: float) -> None:
    """Enqueue one task that is due in so many seconds, at `due`."""
    late.send_with_options(args=(due,), delay=int(seconds * 1000))


def send_large(data: str) -> None:
    """Enqueue one task with a large argument."""
    large.send(data)


def read(handle: object) -> object:
    """Wait for the result of a handle."""
    return handle.get_result(block=True, timeout=60_000)  # type: ignore[attr-defined]


def run_chord(count: int) -> object:
    """Add so many times, then add up; returns the sum. A callback would not be given the results."""
    return sum(dramatiq.group(add.message(number, 1) for number in range(count)).run().get_results(block=True))


def run_chain(count: int) -> object:
    """Add one to what the step before gives, so many times; returns the last value."""
    steps = [add.message(0, 1), *(add.message(1) for _ in range(count - 1))]
    return dramatiq.pipeline(steps).run().get_result(block=True, timeout=60_000)
