"""Two brokers as one: messages are sent to one of them and consumed from the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from umbel.core.message import Message
from umbel.core.queues import Queue
from umbel.engine.seam import Broker, Engine, Refusal

__all__ = ["split"]


def split(reading: Engine, writing: Engine) -> Engine:
    """Return `reading` with its messages sent to `writing`; a task's end is no single transaction then.

    Both are told which queues exist. Counting, purging and looking for messages happens where they are consumed.
    """
    if reading.broker is None or writing.broker is None:
        return reading
    return replace(reading, broker=_Split(reading.broker, writing.broker), atomic=None)


class _Split:
    def __init__(self, reading: Broker, writing: Broker) -> None:
        self._reading = reading
        self._writing = writing
        self.remove = reading.remove
        self.lease = reading.lease
        self.lease_scheduled = reading.lease_scheduled
        self.wake = reading.wake
        self.start = reading.start
        self.extend = reading.extend
        self.settle = reading.settle
        self.recover = reading.recover
        self.adopt = reading.adopt
        self.depth = reading.depth
        self.purge = reading.purge
        self.find = reading.find
        #: What the server's settings mean, where an engine tells.
        self.warnings = getattr(reading, "warnings", list)

    def declare(self, queues: Sequence[Queue]) -> None:
        self._reading.declare(queues)
        self._writing.declare(queues)

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        return self._writing.publish(messages, now)

    def close(self) -> None:
        for broker in (self._reading, self._writing):
            close = getattr(broker, "close", None)
            if close is not None:
                close()
