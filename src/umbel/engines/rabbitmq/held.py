"""A message of RabbitMQ that is with us and not answered yet."""

from __future__ import annotations

import msgspec

from umbel.core.message import Delivery
from umbel.engines.rabbitmq.recognition import Key
from umbel.engines.rabbitmq.subscriptions import Subscription

__all__ = ["Held"]


class Held(msgspec.Struct, eq=False):
    """A delivery that is with us: in the buffer, waiting for its time, or leased (`token` not 0)."""

    delivery: Delivery
    number: int
    source: Subscription
    epoch: int
    handed_out: int = 0
    token: int = 0

    @property
    def key(self) -> Key:
        """What it is recognised by."""
        return self.delivery.id, self.delivery.generation, self.delivery.queue
