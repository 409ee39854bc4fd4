"""Where the messages and results of a laboratory are, and how to count what is left there without asking umbel."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import RabbitAddress, ServerFailedError
from tests.servers.process import Server

#: What lies in the database and is no message.
_NO_MESSAGES = re.compile(
    rb"umbel\.(?!held\.|staged\.|scheduled$|shelf)|celery-task-meta-|_kombu|unacked|.*pidbox|.*celeryev|umbel\.scheduled\.count"
)


@dataclass(frozen=True)
class Deployment:
    """A broker and a place for results."""

    name: str
    broker: str
    #: "" is the broker itself.
    backend: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    #: Results of runs whose lease has passed to another are refused.
    fenced: bool = True
    #: The end of a lease is a word on a connection, which may be lost with it.
    lost_acks: bool = False
    #: Counts the messages that wait or are held; None asks the broker through umbel.
    count: Callable[[], int] | None = None
    #: The server to kill, stop and freeze.
    server: Server | None = None
    #: Says for a failed test where messages are.
    tell: Callable[[], str] = str

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of its workers and producers, the place for results included."""
        return {**self.settings, "result_backend": self.backend or self.broker}


def on_sqlite(folder: Path) -> Deployment:
    """Return the default: one file for everything."""
    return Deployment("sqlite", f"sqlite:///{folder / 'queue.db'}")


def on_redis(url: str, server: Server | None = None) -> Deployment:
    """Return Redis for everything."""
    return Deployment("redis", url, count=lambda: redis_messages(url), server=server, tell=lambda: redis_keys(url))


def on_rabbitmq(
    address: RabbitAddress, url: str, backend: str, server: Server | None = None, settings: dict[str, Any] | None = None
) -> Deployment:
    """Return RabbitMQ with results elsewhere."""
    vhost = url.rpartition("/")[2].replace("%2F", "/")

    def count() -> int:
        held = redis_messages(backend) if backend.startswith("redis") else sqlite_messages(backend)
        return held + rabbit_messages(address, vhost)

    def tell() -> str:
        states = "name, messages_ready, messages_unacknowledged, consumers"
        return address.evaluate(f'rabbit_amqqueue:info_all(<<"{vhost}">>, [{states}]).') + redis_keys(backend)

    return Deployment(
        "rabbitmq", url, backend, settings or {}, fenced=False, lost_acks=True, count=count, server=server, tell=tell
    )


def redis_keys(url: str) -> str:
    """Name the keys in which messages are."""
    import redis

    if not url.startswith("redis"):
        return ""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        return str([key for key in client.scan_iter(count=1000) if not _NO_MESSAGES.match(key)][:20])


#: Every key with its size, looked at in one step: what moves from one key to another meanwhile would not be seen.
_SIZES = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local command = ({list = 'LLEN', hash = 'HLEN', zset = 'ZCARD'})[redis.call('TYPE', key).ok]
  if command then
    found[#found + 1] = key
    found[#found + 1] = redis.call(command, key)
  end
end
return found
"""


def redis_messages(url: str) -> int:
    """Count the messages in a Redis database by its keys alone: waiting, scheduled and held by workers."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=5) as client:
        found = client.eval(_SIZES, 0)
    return sum(size for key, size in zip(found[::2], found[1::2], strict=True) if not _NO_MESSAGES.match(key))


def sqlite_messages(url: str) -> int:
    """Count the messages in a SQLite file by its table alone."""
    file = Path(url.removeprefix("sqlite:///"))
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file, timeout=5)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message'").fetchone():
            return 0
        return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def rabbit_messages(address: RabbitAddress, vhost: str) -> int:
    """Count the messages of a virtual host, ready and unacknowledged, in queues of tasks and of delays."""
    # Replies and broadcasts of remote control are in queues of their own, which end with their consumers.
    said = address.evaluate(
        f"lists:sum([N || [{{name, {{resource, _, queue, Q}}}}, {{messages, N}}] <- "
        f'rabbit_amqqueue:info_all(<<"{vhost}">>, [name, messages]), '
        f'nomatch =:= re:run(Q, "pidbox|celeryev|umbel\\\\.(dead|bus)"), is_integer(N)]).'
    )
    try:
        return int(json.loads(said))
    except ValueError as error:
        raise ServerFailedError(f"RabbitMQ counted {said}") from error
