"""Puts the parts of a consumer together: engines, crew, and the services around them."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from umbel.app import signals
from umbel.app.canvas.publishing import keeps_plans
from umbel.app.registry import is_quiet
from umbel.core.errors import OperationalError
from umbel.core.message import Delivery
from umbel.core.queues import Broadcast
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.seam import Lease
from umbel.worker.bodies import keep_memory
from umbel.worker.consumer import Consumer
from umbel.worker.crew import Crew
from umbel.worker.feeder import Feeder
from umbel.worker.first_contact import consumed
from umbel.worker.going_on import GoingOn
from umbel.worker.heartbeat import Heartbeat
from umbel.worker.link import Link
from umbel.worker.next_step import goes_on
from umbel.worker.options import WorkerOptions
from umbel.worker.pools import SHAPES, LocalCrew
from umbel.worker.progress import Progress
from umbel.worker.remote import RemoteControl
from umbel.worker.settler import Settler
from umbel.worker.watchdog import Watchdog

task_logger = logging.getLogger("celery.worker")

#: How often two threads of the consumer change places (seconds); Python's own 5 ms would delay every hand-over.
_SWITCH_INTERVAL = 0.0005
#: Deliveries come and go by the hundred without cycles: looking for some every 700 objects is wasted.
_GC_THRESHOLD = 20_000


def build_consumer(
    app: Any, options: WorkerOptions, owner: str, progress: Progress, link: Link, dead: tuple[str, ...] = ()
) -> Consumer:
    """Open the engines in this process and wire the consumer of one session.

    `dead` are sessions that are known to have ended; what they held is taken over at once.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    keep_memory()
    clock = SYSTEM_CLOCK
    broker, store = app.broker, app.store
    queues = consumed(app, options)
    lease = Lease(queues, owner, 0, options.lease, encoded=True)
    shape = SHAPES.get(options.pool)
    async_limit = options.async_concurrency if shape is None else shape(options.concurrency)[1]
    # A thread cannot give back what waits behind its task, so nothing ever does.
    crew = Crew(async_limit=async_limit, most=options.prefetch_multiplier if shape is None else 1)
    settler = Settler(app.engine, owner, clock, crew.busy)
    feeder = Feeder(broker, store, lease, clock, app, crew, settler, options, _was_started)
    if signals.task_received.receivers or task_logger.isEnabledFor(logging.INFO):
        feeder.received = _announce_received
    heartbeat = Heartbeat(
        broker,
        store,
        lease,
        clock,
        progress,
        interval=options.heartbeat,
        recovered=feeder.take_recovered,
        lost=lambda: consumer.lease_lost(),  # noqa: PLW0108 - the consumer is made below
        dead=dead,
        joins=keeps_plans(app),
    )
    local = None if shape is None else LocalCrew(app, options, progress)
    consumer = Consumer(app, options, link, progress, crew, feeder, settler, heartbeat, clock, local=local)
    if goes_on(app, options):
        consumer.going_on = GoingOn(crew, feeder, settler, app.engine.follow_ups, owner, clock)
        feeder.lets_go_on = consumer.going_on.allow
    if options.remote_control and app.bus is not None:
        consumer.remote = RemoteControl(consumer, app.bus)
        consumer.remote.troubles = feeder.troubles
    heartbeat.troubles = feeder.troubles
    feeder.starting_looks = app.engine.caps.start_looks
    feeder.rebuild = lambda: broker.declare([app.amqp.queues[name] for name in queues])
    consumer.left = lambda: _remove_copies(app, options.queues)
    if app.engine.caps.clock == "server":
        consumer.watchdog = Watchdog(broker, feeder, clock)
    try:
        feeder.rebuild()
    except OperationalError as exc:
        feeder.troubles.tell("The queues cannot be declared yet", exc)
    return consumer


def _remove_copies(app: Any, names: tuple[str, ...]) -> None:
    """Remove this worker's copies of Broadcast queues."""
    copies = [queue for queue in (app.amqp.queues[name] for name in names) if isinstance(queue, Broadcast)]
    if copies:
        app.broker.remove(copies)


def _was_started(session: str, slot: int, number: int) -> bool:
    """Tell whether a dead session had begun a job; where nobody knows (another host), it counts as begun."""
    progress = Progress.open(session)
    return progress is None or progress.was_started(slot, number)


def _announce_received(delivery: Delivery) -> None:
    """Celery: the line of `celery.worker.strategy`, and the signal in the main process."""
    if is_quiet(delivery.task):
        return
    if task_logger.isEnabledFor(logging.INFO):
        extra = {"task_id": delivery.id, "task_name": delivery.task}
        task_logger.info("Task %s[%s] received", delivery.task, delivery.id, extra=extra)
    signals.task_received.send(sender="consumer", request=delivery)
