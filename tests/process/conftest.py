"""A lab for each test, with its own folder and seed, on whatever deployment the test asks for."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.deployments import Deployment, on_rabbitmq, on_redis
from tests.process.lab import Lab
from tests.process.launcher import Launcher
from tests.servers import RabbitAddress, RabbitServer, RedisServer

#: Opens a lab on a deployment.
Opener = Callable[[Deployment | None], Lab]


@pytest.fixture(scope="session", autouse=True)
def _the_launcher_ends_with_the_session() -> Iterator[None]:
    yield
    Launcher.end()


@pytest.fixture
def open_lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Give a function that makes the lab of a test; LAB_SEED in the environment repeats a run."""
    seed = int(os.environ.get("LAB_SEED", zlib.crc32(request.node.nodeid.encode()) ^ os.getpid()))
    labs: list[Lab] = []

    def opener(deployment: Deployment | None = None) -> Lab:
        lab = Lab(tmp_path, seed, deployment)
        labs.append(lab)
        os.environ["LAB_JOURNAL"] = str(lab.journal.path)
        return lab

    yield opener
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(open_lab: Opener) -> Lab:
    """Give a lab on a SQLite file."""
    return open_lab(None)


@pytest.fixture
def redis_lab(redis_url: str, open_lab: Opener) -> Lab:
    """Give a lab on an empty database of the shared Redis, which is to be left alone."""
    return open_lab(on_redis(redis_url))


@pytest.fixture
def own_redis(redis_installed: None) -> Iterator[RedisServer]:
    """Start a Redis that keeps every write, and may be killed."""
    with RedisServer(aof=True) as server:
        yield server


@pytest.fixture
def own_redis_lab(own_redis: RedisServer, open_lab: Opener) -> Lab:
    """Give a lab with a Redis of its own."""
    return open_lab(on_redis(own_redis.url, own_redis))


@pytest.fixture
def rabbit_lab(rabbit_server: RabbitAddress, redis_url: str, open_lab: Opener) -> Lab:
    """Give a lab on a virtual host of the shared RabbitMQ, which is to be left alone; results in Redis."""
    return open_lab(on_rabbitmq(rabbit_server, rabbit_server.fresh_url(), redis_url))


@pytest.fixture
def rabbit_file_lab(rabbit_server: RabbitAddress, tmp_path: Path, open_lab: Opener) -> Lab:
    """Give a lab on a virtual host of the shared RabbitMQ; results in a SQLite file."""
    return open_lab(on_rabbitmq(rabbit_server, rabbit_server.fresh_url(), f"sqlite:///{tmp_path / 'results.db'}"))


@pytest.fixture(scope="session")
def own_rabbit(rabbit_installed: None) -> Iterator[RabbitServer]:
    """Start a RabbitMQ for the tests of this process that kill it and leave it running."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def own_rabbit_lab(own_rabbit: RabbitServer, redis_url: str, open_lab: Opener) -> Lab:
    """Give a lab on a virtual host of a RabbitMQ that may be killed; results in a Redis that is left alone."""
    own_rabbit.thaw()
    own_rabbit.start()
    return open_lab(on_rabbitmq(own_rabbit, own_rabbit.fresh_url(), redis_url, own_rabbit))


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_lab(request: pytest.FixtureRequest) -> Lab:
    """Give a lab on each broker in turn; the servers are shared and to be left alone."""
    lab: Lab = request.getfixturevalue("redis_lab" if request.param == "redis" else "rabbit_lab")
    return lab
