"""Hand messages to the broker: retries, their pauses and the total deadline, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel.core.errors import OperationalError, PublishTimeout, StorageFull
from umbel.core.message import Message
from umbel.core.queues import Queue
from umbel.core.urls import mask_url
from umbel.engine.clock import SYSTEM_CLOCK, Clock
from umbel.engine.seam import Broker, Refusal

__all__ = ["declare_first", "publish"]

_DEFAULT_POLICY = {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}


def declare_first(app: Any, queues: Sequence[Queue], *, needed: bool) -> None:
    """Have queues declared with the next `publish`, each once for the settings as they are.

    `needed` says that nothing can be sent before. Where it is not, a queue that is there already is left as it is.
    """
    done, waiting = app.__dict__.get("_declared"), app.__dict__.setdefault("_undeclared", {})
    if done is None or done[0] != app.conf.version:
        done = app.__dict__["_declared"] = (app.conf.version, {})
    for queue in queues:
        if done[1].get(queue.name) is not queue:
            done[1][queue.name] = queue
            waiting[queue.name] = (queue, needed)


def _attempt(app: Any, broker: Broker, messages: Sequence[Message], now: float) -> list[Refusal]:
    waiting: dict[str, tuple[Queue, bool]] | None = app.__dict__.get("_undeclared")
    if waiting:
        for name, (queue, needed) in list(waiting.items()):
            try:
                broker.declare([queue])
            except OperationalError:
                if needed:
                    raise
                # Publishing says what is wrong, if anything is: the engine knows by now how the queue is to be made.
            waiting.pop(name, None)
    return broker.publish(messages, now)


def publish(
    app: Any,
    messages: Sequence[Message],
    *,
    retry: bool | None = None,
    policy: Mapping[str, Any] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Refusal]:
    """Store the messages and return those refused; once it returns the others are stored.

    When the broker cannot do it now, try again as `task_publish_retry_policy` (or `policy`) says. Raises the
    OperationalError of the last attempt, or PublishTimeout once `task_publish_deadline` seconds are over. Trying again
    is harmless: a message that is stored already counts as stored, or its copy is known by id and generation.
    """
    broker: Broker = app.broker
    started = clock.monotonic()
    try:
        return _attempt(app, broker, messages, clock.now())
    except StorageFull:
        raise
    except OperationalError as error:
        first = error
    conf = app.conf
    if not (conf.task_publish_retry if retry is None else retry):
        raise first
    rules = {**_DEFAULT_POLICY, **(conf.task_publish_retry_policy or {}), **(policy or {})}
    return _again(app, broker, messages, rules, first, started, clock, sleep)


def _again(
    app: Any,
    broker: Broker,
    messages: Sequence[Message],
    rules: Mapping[str, Any],
    error: OperationalError,
    started: float,
    clock: Clock,
    sleep: Callable[[float], None],
) -> list[Refusal]:
    deadline = float(app.conf.task_publish_deadline)
    pause = float(rules["interval_start"] or 0)
    most = rules["max_retries"]
    attempts = 1
    lasted = clock.monotonic() - started
    while most is None or attempts <= most:
        # An attempt that could not end near the deadline is not begun: a broker that hangs takes as long each time.
        if clock.monotonic() - started + pause + lasted / 2 > deadline:
            raise PublishTimeout(_story(app, attempts, clock.monotonic() - started, error)) from error
        if pause:
            sleep(pause)
        pause = min(pause + float(rules["interval_step"] or 0), float(rules["interval_max"] or 0))
        attempts += 1
        began = clock.monotonic()
        try:
            return _attempt(app, broker, messages, clock.now())
        except StorageFull:
            raise
        except OperationalError as again:
            error = again
            lasted = clock.monotonic() - began
    raise type(error)(_story(app, attempts, clock.monotonic() - started, error)) from error


def _story(app: Any, attempts: int, seconds: float, error: OperationalError) -> str:
    where = mask_url(str(app.conf.broker_write_url))
    return f"could not publish to {where} in {attempts} attempts and {seconds:.1f} s: {error}"
