"""What the conformance suites share: the time, small messages, and the parts of the engine under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umbel.core.message import Delivery, Message, Settlement
from umbel.engine.seam import Broker, Engine, Lease, Store

#: The time at which every test begins.
NOW = 1_700_000_000.0
#: Seconds after which a wait that should have ended has failed.
DEADLINE = 10.0


def message(id_: str, queue: str = "q", **fields: Any) -> Message:
    """Return a small message."""
    return Message(id_, "project.task", queue, b'{"task": "project.task"}', b"[[], {}, {}]", **fields)


def done(delivery: Delivery, **fields: Any) -> Settlement:
    """Return the settlement of a delivery."""
    return Settlement(delivery.tag, delivery.token, **fields)


def ids(deliveries: Sequence[Message]) -> list[str]:
    """Return the ids of messages in order."""
    return [delivery.id for delivery in deliveries]


class Suite:
    """What the suites share."""

    @staticmethod
    def broker(engine: Engine) -> Broker:
        """Return the broker of the engine under test."""
        assert engine.broker is not None
        return engine.broker

    @staticmethod
    def store(engine: Engine) -> Store:
        """Return the store of the engine under test."""
        assert engine.store is not None
        return engine.store

    @staticmethod
    def take(engine: Engine, owner: str = "me", now: float = NOW, **fields: Any) -> list[Delivery]:
        """Lease from queue q."""
        assert engine.broker is not None
        wait = fields.pop("wait", 0.0)
        lease = {"queues": ("q",), "limit": 100, "seconds": 30.0, **fields}
        return engine.broker.lease(Lease(owner=owner, **lease), now, wait)
