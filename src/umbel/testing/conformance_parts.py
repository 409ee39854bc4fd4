"""What the conformance suites share: the time, small messages, and the parts of the engine under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from umbel.core.head import Head, HeadFields, HeadTemplate, format_time
from umbel.core.head_reader import headers_of, read_head
from umbel.core.message import Delivery, Message, Record, Settlement
from umbel.core.queues import Queue
from umbel.engine.seam import Broker, Engine, Lease, Store

#: The time at which every test begins.
NOW = 1_700_000_000.0
#: Seconds after which a wait that should have ended has failed.
DEADLINE = 10.0
#: Seconds without a message after which a broker of its own clock is taken to have no more.
QUIET = 0.25
#: Seconds within which what others left goes round, where it does not stay in its place (`Caps.skips`).
ROUND = 1.5
#: The queues of the tests; where priorities have to be declared they get this one.
QUEUES = ("q", "a", "b", "other", "not asked for")
HIGHEST_PRIORITY = 9
TASK = "project.task"


def message(id_: str, queue: str = "q", *, task: str = TASK, **fields: Any) -> Message:
    """Return a small message with the head that the client writes for it."""
    due, expires = fields.get("due", 0.0), fields.get("expires", 0.0)
    template = HeadTemplate(
        task, exchange=fields.get("exchange", ""), routing_key=queue, priority=fields.get("priority")
    )
    head = HeadFields(
        id_,
        eta=format_time(due) if due else None,
        expires=format_time(expires) if expires else None,
        retries=fields.get("generation", 0),
    )
    return Message(id_, task, queue, template.write(head), b"[[], {}, {}]", **fields)


def record(id_: str, state: str, result: Any = None, expires: float = 0.0) -> Record:
    """Return a stored state with the meta that Celery's result backends keep."""
    meta = {"status": state, "result": result, "traceback": None, "children": [], "date_done": None, "task_id": id_}
    return Record(id_, state, msgspec.json.encode(meta), expires)


def same(got: Message, sent: Message) -> bool:
    """Tell whether a message is what was sent: an engine may write its head anew, but not change what it says."""
    one, two = read_head(got.head), read_head(sent.head)
    if isinstance(one, Head):
        one.redelivered = False
    if (got.id, got.task, got.body, one) != (sent.id, sent.task, sent.body, two):
        return False
    # A header that is null says as much as none.
    return _said(headers_of(got.head)) == _said(headers_of(sent.head))


def _said(headers: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if value is not None}


def step(engine: Engine, priority: int) -> int:
    """The place of a priority in the order of the engine; the smaller one is served first."""
    if engine.caps.priorities == "steps":
        return max((each for each in (0, 3, 6, 9) if each <= priority), default=0)
    if engine.caps.priorities == "declared":
        return -max(0, min(priority, HIGHEST_PRIORITY))
    return -priority


def done(delivery: Delivery, **fields: Any) -> Settlement:
    """Return the settlement of a delivery."""
    return Settlement(delivery.tag, delivery.token, **fields)


def ids(deliveries: Sequence[Message]) -> list[str]:
    """Return the ids of messages in order."""
    return [delivery.id for delivery in deliveries]


def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> bool:
    """Return True as soon as the condition holds, False when it did not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Suite:
    """What the suites share."""

    @staticmethod
    def broker(engine: Engine) -> Broker:
        """Return the broker of the engine under test; its queues exist."""
        assert engine.broker is not None
        if engine.caps.priorities == "declared":
            engine.broker.declare([Queue(name, max_priority=HIGHEST_PRIORITY) for name in QUEUES])
        return engine.broker

    @staticmethod
    def store(engine: Engine) -> Store:
        """Return the store of the engine under test."""
        assert engine.store is not None
        return engine.store

    @staticmethod
    def now(engine: Engine) -> float:
        """The time at which a test begins: ours where the engine takes it, else the real one."""
        return NOW if engine.caps.clock == "caller" else round(time.time(), 3)

    @staticmethod
    def soon(engine: Engine, seconds: float) -> float:
        """So many seconds where they are only said, one and a half where they have to pass."""
        return seconds if engine.caps.clock == "caller" else 1.5

    @staticmethod
    def pass_until(engine: Engine, moment: float) -> float:
        """Let the time become `moment` and return it."""
        if engine.caps.clock != "caller":
            eventually(lambda: time.time() >= moment)
        return moment

    @staticmethod
    def take(engine: Engine, owner: str = "me", now: float | None = None, **fields: Any) -> list[Delivery]:
        """Lease from queue q all that is there, or `limit`."""
        broker = Suite.broker(engine)
        wait = fields.pop("wait", 0.0)
        lease = Lease(owner=owner, **{"queues": ("q",), "limit": 100, "seconds": 30.0, **fields})
        if engine.caps.clock == "caller":
            return broker.lease(lease, NOW if now is None else now, wait)
        # What such a broker sends is on its way when it is asked: all of it has come when nothing more does.
        taken = broker.lease(lease, time.time(), wait or QUIET)
        while taken and len(taken) < lease.limit:
            more = broker.lease(lease._replace(limit=lease.limit - len(taken)), time.time(), QUIET)
            if not more:
                break
            taken += more
        return taken
