"""Emptying queues on RabbitMQ: exact, and whoever waits is told, also when the server takes its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.app.execution_kit import KitApp
from tests.proxy import Proxy
from umbel.app.purging import purge


@pytest.fixture
def proxy(rabbit_url: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(rabbit_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def app(rabbit_url: str, redis_url: str, proxy: Proxy) -> Iterator[Any]:
    made = KitApp("kit", set_as_current=False, broker=proxy.url(rabbit_url), backend=redis_url)

    @made.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    yield made
    made.close()


def ready(app: Any) -> int:
    return app.broker.depth(["celery"], time.time())["celery"].ready


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_whoever_waits_is_told_however_slowly_messages_come(app: Any, proxy: Proxy, seconds: float) -> None:
    add = app.tasks["add"]
    followed = [(add.s(n, 1) | add.s(1)).apply_async() for n in range(3)]
    add.delay_many((n, 1) for n in range(1500))
    proxy.delay(seconds)
    assert purge(app, ["celery"]) == 1503
    proxy.delay(0.0)
    assert ready(app) == 0
    assert {one.parent.state for one in followed} == {"REVOKED"}


def test_one_queue_is_purged_again_and_again(app: Any) -> None:
    for count in (40, 3, 0, 200):
        app.tasks["add"].delay_many((n, 1) for n in range(count))
        assert purge(app, ["celery"]) == count
        assert ready(app) == 0
