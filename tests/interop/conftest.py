"""One fleet for each broker, and for all tests of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop.environment import EnvironmentFailedError, python_with_celery
from tests.interop.kit import Fleet
from tests.servers import RabbitAddress, RedisServer


@pytest.fixture(scope="session")
def celery_installed() -> None:
    """Install Celery; skip where that fails, but not where CI=true."""
    try:
        python_with_celery()
    except EnvironmentFailedError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def redis_fleet(
    celery_installed: None, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """The fleet on Redis."""
    url = redis_server.fresh_url()
    fleet = Fleet("redis", url, url, tmp_path_factory.mktemp("redis-fleet"))
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def rabbitmq_fleet(
    celery_installed: None,
    rabbit_server: RabbitAddress,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """The fleet on RabbitMQ, with results in Redis."""
    folder = tmp_path_factory.mktemp("rabbitmq-fleet")
    fleet = Fleet("rabbitmq", rabbit_server.fresh_url(), redis_server.fresh_url(), folder)
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def quorum_rabbitmq_fleet(
    celery_installed: None, rabbit_server: RabbitAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A fleet on RabbitMQ with quorum queues, and results that travel as messages."""
    folder = tmp_path_factory.mktemp("quorum-fleet")
    fleet = Fleet("rabbitmq", rabbit_server.fresh_url(), "rpc://", folder, INTEROP_QUORUM="1")
    fleet.celery_worker.wait_ready()
    fleet.umbel_worker.wait_ready()
    yield fleet
    fleet.close()


@pytest.fixture(params=["redis", "rabbitmq"])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """A fleet whose workers are both ready."""
    found: Fleet = request.getfixturevalue(f"{request.param}_fleet")
    found.celery_worker.wait_ready()
    found.umbel_worker.wait_ready()
    return found
