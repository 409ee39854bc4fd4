"""A worker with two brokers goes on at the second when the first is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.conftest import Opener
from tests.process.deployments import on_redis
from tests.process.lab import Lab, Worker, wait
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def pair(redis_installed: None) -> Iterator[tuple[RedisServer, RedisServer]]:
    with RedisServer() as first, RedisServer() as second:
        yield first, second


def test_a_worker_goes_on_at_the_second_broker_when_the_first_is_killed(
    pair: tuple[RedisServer, RedisServer], open_lab: Opener
) -> None:
    first, second = pair
    lab: Lab = open_lab(on_redis(second.url))
    both = f"{first.url};{second.url}"
    worker: Worker = lab.worker(LAB_URL=both)
    first.kill()
    ids = lab.send_many("lab.work", 5, 0.0)
    finals = lab.wait_states(ids, 40)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert worker.process.poll() is None
    wait(lambda: worker.said("127.0.0.1"), 5, "a word about it")
