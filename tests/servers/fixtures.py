"""pytest's doors to the servers: one of each kind for a run, an empty database or virtual host for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers.install import missing
from tests.servers.process import Keeper
from tests.servers.rabbit_server import RabbitAddress
from tests.servers.redis_server import RedisServer
from tests.servers.shared import shared_rabbit


def need(*packages: str) -> None:
    """Skip the test where a server cannot be had; where CI=true that is a failure."""
    problems = missing(*packages)
    if problems and os.environ.get("CI"):
        pytest.fail("; ".join(problems), pytrace=False)
    if problems:
        pytest.skip("; ".join(problems))


@pytest.fixture(scope="session")
def redis_installed() -> None:
    """Ask for this before starting a `RedisServer` of one's own."""
    need("redis-server")


@pytest.fixture(scope="session")
def rabbit_installed() -> None:
    """Ask for this before starting a `RabbitServer` of one's own."""
    need("rabbitmq-server")


@pytest.fixture(scope="session")
def redis_server(redis_installed: None) -> Iterator[RedisServer]:
    """A Redis for the tests of this process that leave it alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server(rabbit_installed: None) -> RabbitAddress:
    """The RabbitMQ of the whole test run, for tests that leave it alone."""
    return shared_rabbit()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Address of an empty Redis database."""
    return redis_server.fresh_url()


@pytest.fixture
def rabbit_url(rabbit_server: RabbitAddress) -> Iterator[str]:
    """Address of an empty RabbitMQ virtual host."""
    url = rabbit_server.fresh_url()
    yield url
    rabbit_server.remove_vhost(url.rpartition("/")[2])


@pytest.fixture(scope="session", autouse=True)
def _servers_end_with_the_session() -> Iterator[None]:
    yield
    Keeper.stop()
