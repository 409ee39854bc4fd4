"""The Redis engine: broker, store and bus in one Redis or Valkey that Celery may share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.engine.seam import Caps, Engine
from umbel.engines.redis.broker import RedisBroker
from umbel.engines.redis.bus import RedisBus
from umbel.engines.redis.connection import Client
from umbel.engines.redis.keys import Keys
from umbel.engines.redis.location import locate
from umbel.engines.redis.store import RedisStore, Revocations

__all__ = ["open_engine"]

_CAPS = Caps(
    durability="C",
    durability_text="memory first: what a crash of Redis may take depends on its appendonly and appendfsync",
    remove=False,
    once=False,
    step=200,
    priorities="steps",
    skips=False,
    adopt_looks=True,
    clock="server",
    expiry="server",
)


def open_engine(url: str, options: Mapping[str, Any]) -> Engine:
    """Open the Redis that `url` and `options` name (see `location.locate`); nothing is sent before the first use."""
    location = locate(url, options)
    client = Client(location)
    revocations = Revocations()
    keys = Keys(
        location.prefix,
        location.priority_steps,
        location.sep,
        location.fanout,
        fanout_patterns=location.fanout_patterns,
    )
    broker = RedisBroker(client, keys, revocations)
    return Engine(
        url=url,
        caps=_CAPS,
        broker=broker,
        store=RedisStore(client, revocations),
        bus=RedisBus(client),
        dead=broker,
        atomic=broker,
        follow_ups=broker.follow_ups,
    )
