"""Private servers for tests: `RedisServer` and `RabbitServer` on free loopback ports, to be killed at will."""

from __future__ import annotations

from tests.servers.process import ServerFailedError
from tests.servers.rabbit_server import RabbitAddress, RabbitServer
from tests.servers.redis_server import RedisServer

__all__ = ["RabbitAddress", "RabbitServer", "RedisServer", "ServerFailedError"]
