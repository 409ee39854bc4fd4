"""Hand messages to the broker: retries, their pauses and the total deadline, in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel.core.errors import OperationalError, PublishTimeout, StorageFull
from umbel.core.message import Message
from umbel.core.urls import mask_url
from umbel.engine.clock import SYSTEM_CLOCK, Clock
from umbel.engine.seam import Broker, Refusal

__all__ = ["publish"]

_DEFAULT_POLICY = {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}


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
        return broker.publish(messages, clock.now())
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
            return broker.publish(messages, clock.now())
        except StorageFull:
            raise
        except OperationalError as again:
            error = again
            lasted = clock.monotonic() - began
    raise type(error)(_story(app, attempts, clock.monotonic() - started, error)) from error


def _story(app: Any, attempts: int, seconds: float, error: OperationalError) -> str:
    where = mask_url(str(app.conf.broker_write_url))
    return f"could not publish to {where} in {attempts} attempts and {seconds:.1f} s: {error}"
