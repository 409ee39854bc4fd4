"""Notices a connection that looks alive and brings nothing: messages wait, executors are free, none is leased."""

from __future__ import annotations

import logging

from umbel.core.errors import OperationalError
from umbel.engine.clock import Clock
from umbel.engine.seam import Broker
from umbel.worker.feeder import Feeder
from umbel.worker.service import Service

logger = logging.getLogger("umbel.worker")

#: Seconds without a message after which the queues are looked at, and between two looks.
PATIENCE = 15.0


class Watchdog(Service):
    """Looks at the queues when nothing has come for a while; seen waiting twice, the connections are made anew."""

    name = "watchdog"

    def __init__(self, broker: Broker, feeder: Feeder, clock: Clock, patience: float = PATIENCE) -> None:
        super().__init__()
        self._broker = broker
        self._feeder = feeder
        self._clock = clock
        self._patience = patience
        self._born = clock.monotonic()
        self._seen_waiting = False

    def run(self) -> None:
        """Look until told to stop."""
        while not self.stopping.wait(self._patience):
            try:
                self.look()
            except OperationalError as exc:
                # The feeder meets the same and tries again.
                self._seen_waiting = False
                self.troubles.tell("The queues cannot be looked at", exc)

    def look(self) -> None:
        """Look once; make the connections anew when messages were waiting in vain the last time too."""
        since = self._clock.monotonic() - max(self._feeder.leased_at, self._born)
        if since < self._patience or not self._feeder.takes_all:
            self._seen_waiting = False
            return
        depths = self._broker.depth(self._feeder.lease.queues, self._clock.now())
        ready = sum(depth.ready for depth in depths.values())
        if not ready or not self._feeder.takes_all:
            self._seen_waiting = False
            return
        if not self._seen_waiting:
            self._seen_waiting = True
            return
        self._seen_waiting = False
        logger.error(
            "%d messages are ready and executors are free, but none has come for %.0f s: connecting to the broker anew",
            ready,
            since,
        )
        self._reconnect()

    def _reconnect(self) -> None:
        """Close this process' connections to the broker; whoever needs one opens it again, queues declared."""
        close = getattr(self._broker, "close", None)
        if close is not None:
            close()
        self._feeder.wake()
