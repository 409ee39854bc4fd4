"""An engine whose way to Redis can be cut, and the server as a plain client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.proxy import Proxy
from tests.servers import RedisServer
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def engine(redis_url: str, proxy: Proxy) -> Iterator[Engine]:
    engine = open_engine(proxy.url(redis_url), {"socket_timeout": 2.0})
    yield engine
    engine.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client
