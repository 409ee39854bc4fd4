"""RabbitMQ: messages wait in its queues, leases are its unacknowledged deliveries, delays its own levels of queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.engine.seam import Caps, Engine
from umbel.engines.rabbitmq.broker import RabbitBroker
from umbel.engines.rabbitmq.bus import RabbitBus
from umbel.engines.rabbitmq.dead import RabbitDead
from umbel.engines.rabbitmq.location import locate
from umbel.engines.rabbitmq.rpc import RpcStore

__all__ = ["open_engine"]

_CAPS = Caps(
    durability="B",
    durability_text="confirmed: what was published is on RabbitMQ's disk when its queue is durable",
    find=False,
    remove=False,
    once=False,
    step=1,
    priorities="declared",
    skips=False,
    recovers=False,
    remembers=False,
    counts=False,
    plans=False,
    clock="server",
)


def open_engine(url: str, options: Mapping[str, Any]) -> Engine:
    """Open the vhost that `url` names (see `location.locate`); connections are made at first use."""
    location = locate(url, options)
    broker = RabbitBroker(location)
    dead = broker.dead = RabbitDead(location, broker.pool, broker.publisher, broker.publish)
    store = RpcStore(location, broker)
    return Engine(
        url=url,
        caps=_CAPS,
        broker=broker,
        store=store,
        bus=RabbitBus(location, broker.pool, broker.publisher),
        dead=dead,
        replies=store.expect_replies,
    )
