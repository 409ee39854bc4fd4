"""Keeps this session's leases alive and takes over what sessions and clients that have died left undone."""

from __future__ import annotations

from collections.abc import Callable

from umbel.app import signals
from umbel.core.errors import OperationalError
from umbel.core.message import Delivery
from umbel.engine.clock import Clock
from umbel.engine.seam import Broker, Lease, Store
from umbel.worker.progress import Progress, lease_clock
from umbel.worker.service import Service

#: How many lapsed deliveries one look takes over.
_RECOVER_LIMIT = 500
#: Seconds between two sweeps of expired results.
_EXPIRE_EVERY = 60.0
#: Seconds after which whoever was told that a group is complete has surely published its body, or never will; the
#: look for such groups is as often.
_LATE = 10.0
#: How soon a failed extension is tried again (seconds): executors that have nothing to be sure of wait for it.
_OVERDUE = 1.0


class Heartbeat(Service):
    """Extends the lease every `interval` seconds, whatever the tasks do, and recovers what others left behind.

    `dead` are sessions of this worker that are known to have ended: what they held is taken over at once. With `joins`
    it also goes on with chords that others have completed and left.
    """

    name = "heartbeat"

    def __init__(
        self,
        broker: Broker,
        store: Store | None,
        lease: Lease,
        clock: Clock,
        progress: Progress,
        *,
        interval: float,
        recovered: Callable[[list[Delivery]], None],
        lost: Callable[[], None],
        dead: tuple[str, ...] = (),
        joins: bool = True,
    ) -> None:
        super().__init__()
        self._broker = broker
        self._store = store
        self._lease = lease._replace(limit=_RECOVER_LIMIT, dead=dead)
        self._clock = clock
        self._progress = progress
        self._interval = interval
        self._recovered = recovered
        self._lost = lost
        self._next_expire = 0.0
        #: When to look for groups that nobody goes on with (monotonic time); None where the store joins nothing.
        self._next_late = 0.0 if joins and store is not None else None
        self._born = clock.monotonic()
        #: While False nothing is recovered (the worker is shutting down).
        self.recovering = True
        #: False once leases of this session have passed to others.
        self._holding = True
        #: When the leases were extended, or could have been needed first (monotonic time).
        self._extended = clock.monotonic()
        progress.hold(lease.seconds, lease_clock())

    def run(self) -> None:
        """Beat until told to stop."""
        pause = self._interval / 2
        while True:
            self._try(self._recover)
            self._try(self._expire)
            self._try(self._publish_late)
            overdue = self._clock.monotonic() - self._extended > 2 * self._interval
            if self.stopping.wait(min(pause, _OVERDUE) if overdue else pause):
                return
            if self._holding and self._clock.monotonic() - self._extended >= self._interval:
                self._try(self._extend)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OperationalError as exc:
            self.troubles.tell(f"The {self.name} could not do its work, trying again", exc)

    def _extend(self) -> None:
        began, since = self._clock.monotonic(), lease_clock()
        if not self._broker.extend(self._lease.owner, self._lease.seconds, self._clock.now()):
            # Told once: another extension would make what is held from now on look like what was held before.
            self._holding = False
            self._lost()
            return
        self._extended = began
        self._progress.hold(self._lease.seconds, since)
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self)

    def _recover(self) -> None:
        if not self.recovering:
            return
        if self._lease.dead and self._clock.monotonic() - self._born > self._lease.seconds:
            # Whatever they still held has lapsed by itself.
            self._lease = self._lease._replace(dead=())
        while True:
            deliveries = self._broker.recover(self._lease, self._clock.now())
            if not deliveries:
                return
            self._recovered(deliveries)
            if len(deliveries) < _RECOVER_LIMIT:
                return

    def _expire(self) -> None:
        if self._store is None or self._clock.monotonic() < self._next_expire:
            return
        while self._store.expire(self._clock.now(), 1000) == 1000 and not self.stopping.is_set():
            continue
        self._next_expire = self._clock.monotonic() + _EXPIRE_EVERY

    def _publish_late(self) -> None:
        """Publish the bodies of groups whose completion was told to somebody who died before doing so."""
        if self._store is None or self._next_late is None or self._clock.monotonic() < self._next_late:
            return
        if not self.recovering:
            return
        self._next_late = self._clock.monotonic() + _LATE
        now = self._clock.now()
        late = [
            (joined.group, joined.body) for joined in self._store.unconfirmed(now - _LATE) if joined.body is not None
        ]
        if not late:
            return
        refusals = self._broker.publish([body for _, body in late], now)
        refused = {refusal.index for refusal in refusals}
        self._store.confirm([group for place, (group, _) in enumerate(late) if place not in refused])
        for refusal in refusals:
            raise refusal.error
