"""A worker's first words with its broker and result store, before anything is forked.

What is wrong as configured (password, vhost, certificate, a queue that exists with other arguments) ends the worker
with one clear line; a server that is not there yet is waited for, and one whose memory is full is put up with.
Later no broker ends a worker.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from umbel.app.flow_queue import flow_queue
from umbel.core.errors import EngineBusy, OperationalError, StorageFull
from umbel.core.queues import Broadcast
from umbel.engine.reaching import is_unreachable
from umbel.worker.options import WorkerOptions
from umbel.worker.service import Troubles

__all__ = ["consumed", "reach"]

logger = logging.getLogger("umbel.worker")

#: Pause between two attempts: first, step and last (seconds); Celery's worker waits alike.
_FIRST, _STEP, _LAST = 1.0, 1.0, 10.0


def reach(app: Any, options: WorkerOptions, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Declare the queues and look at the result store once.

    Raises OperationalError saying what is wrong. A server that cannot be reached is tried again as
    `broker_connection_retry_on_startup` and `broker_connection_max_retries` say; one that is only busy is no reason
    to wait. Then lets go of connections: what is forked opens its own.
    """
    troubles = Troubles()
    queues = [app.amqp.queues[name] for name in consumed(app, options)]
    # A copy of a Broadcast is made by the process that consumes it: where that is spawned, it is another one.
    queues = [replace(queue, no_declare=True) if isinstance(queue, Broadcast) else queue for queue in queues]
    _patiently(lambda: app.broker.declare(queues), app.conf, troubles, sleep)
    if app.store is not None:
        _patiently(lambda: app.store.get(["umbel-first-contact"], time.time()), app.conf, troubles, sleep)
    troubles.over()
    _say_durability(app)
    if app.engine.caps.clock == "server":
        app.close()


def consumed(app: Any, options: WorkerOptions) -> tuple[str, ...]:
    """Return the queues that a worker reads: its own, and the one of umbel's own tasks."""
    flow = flow_queue(app).name
    return options.queues if flow in options.queues else (*options.queues, flow)


def _patiently(call: Callable[[], object], conf: Any, troubles: Troubles, sleep: Callable[[float], None]) -> None:
    attempts, pause = 0, _FIRST
    while True:
        try:
            call()
        except OperationalError as exc:
            if not is_unreachable(exc):
                # A server that is full can only be emptied by workers; a full disk of our own is another matter.
                if isinstance(exc, EngineBusy) or (isinstance(exc, StorageFull) and hasattr(exc, "misconfigured")):
                    logger.warning("%s; starting all the same", exc)
                    return
                raise
            attempts += 1
            if not _may_wait(conf, attempts):
                raise
            troubles.tell("Waiting for the broker", exc)
            sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause + _STEP, _LAST)
        else:
            return


def _may_wait(conf: Any, attempts: int) -> bool:
    """Tell whether to try again after so many attempts."""
    wanted = conf.broker_connection_retry_on_startup
    if wanted is None:
        wanted = conf.broker_connection_retry
    most = conf.broker_connection_max_retries
    return bool(wanted) and (not most or attempts <= most)


def _say_durability(app: Any) -> None:
    """Log what the server's own settings mean for messages: no journal, eviction …"""
    told: set[str] = set()
    for part in {id(part): part for part in (app.broker, app.store) if part is not None}.values():
        warn = getattr(part, "warnings", None)
        if warn is None:
            continue
        try:
            lines = warn()
        except OperationalError:
            continue
        for line in lines:
            if line not in told:
                told.add(line)
                logger.warning("%s", line)
