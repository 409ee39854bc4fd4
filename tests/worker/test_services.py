"""The consumer's loops: what they do when the engine fails, and when a lease is lost."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from umbel.core.errors import OperationalError
from umbel.core.message import Delivery, End, Message, Part, Record, Settlement
from umbel.core.queues import Queue
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.seam import Engine, Lease
from umbel.engines.memory import open_engine
from umbel.worker.heartbeat import Heartbeat
from umbel.worker.progress import Progress
from umbel.worker.service import Service, Troubles
from umbel.worker.settler import Settler

LEASE = Lease(("q",), "me", 10, 30.0)


class Flaky:
    """A part of an engine that fails as often as it is told to, and otherwise is the real one."""

    def __init__(self, part: Any, failures: int = 0) -> None:
        self._part = part
        self.failures = failures
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise OperationalError("the disk is away")
            return getattr(self._part, name)(*args, **kwargs)

        return call


@pytest.fixture
def engine() -> Engine:
    made = open_engine("memory://", {})
    assert made.broker is not None
    made.broker.declare([Queue("q")])
    return made


def leased(engine: Engine, count: int, owner: str = "me", seconds: float = 30.0) -> list[Delivery]:
    assert engine.broker is not None
    now = time.time()
    engine.broker.publish([Message(str(n), "t", "q", b"{}", b"[]") for n in range(count)], now)
    return engine.broker.lease(Lease(("q",), owner, count, seconds), now)


def done(delivery: Delivery) -> Settlement:
    record = Record(delivery.id, "SUCCESS", b"{}")
    return Settlement(delivery.tag, delivery.token, End.DONE, record)


def stop(service: Service) -> None:
    service.stop()
    assert service.join(10.0)


def settler_of(engine: Engine) -> Settler:
    settler = Settler(engine, "me", SYSTEM_CLOCK, lambda: 0)
    settler.start()
    return settler


# --- settling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [Settler.put, Settler.settle])
def test_outcomes_are_committed_however_they_come(
    engine: Engine, give: Callable[[Settler, Sequence[Settlement]], None]
) -> None:
    settler = settler_of(engine)
    deliveries = leased(engine, 5)
    for delivery in deliveries:
        give(settler, [done(delivery)])
    assert settler.drain(10.0)
    stop(settler)
    assert engine.store is not None
    assert set(engine.store.get([d.id for d in deliveries], time.time())) == {d.id for d in deliveries}


@pytest.mark.parametrize("give", [Settler.put, Settler.settle])
def test_a_commit_that_fails_is_tried_until_it_succeeds(
    engine: Engine, caplog: pytest.LogCaptureFixture, give: Callable[[Settler, Sequence[Settlement]], None]
) -> None:
    broken = Flaky(engine.atomic, failures=2)
    settler = settler_of(replace(engine, atomic=broken))
    (delivery,) = leased(engine, 1)
    give(settler, [done(delivery)])
    assert settler.drain(10.0)
    stop(settler)
    assert broken.calls == 3
    assert engine.store is not None
    assert engine.store.get([delivery.id], time.time())[delivery.id].state == "SUCCESS"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (1 if give is Settler.put else 2)
    assert all("the disk is away" in line for line in lines)


def test_stopping_while_the_engine_is_away_gives_up_and_says_what_that_means(
    engine: Engine, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    broken = Flaky(engine.atomic, failures=10**6)
    settler = settler_of(replace(engine, atomic=broken))
    settler.put([done(leased(engine, 1)[0])])
    wait_until(lambda: broken.calls >= 2, what="a second try")
    stop(settler)
    assert "will be delivered again" in caplog.text


def test_a_stale_outcome_changes_nothing_and_is_told(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    settler = settler_of(engine)
    (delivery,) = leased(engine, 1)
    settler.put([stale(delivery)])
    assert settler.drain(10.0)
    stop(settler)
    assert engine.store is not None
    assert engine.store.get([delivery.id], time.time()) == {}
    assert "1 of 1 outcomes" in caplog.text


def stale(delivery: Delivery) -> Settlement:
    settlement = done(delivery)
    settlement.token = delivery.token + 7
    return settlement


# --- the heartbeat -------------------------------------------------------------------------------------------


class Beat:
    """A heartbeat on an engine, and what it said."""

    def __init__(self, broker: Any, store: Any = None, interval: float = 0.05, lease: Lease = LEASE) -> None:
        self.recovered: list[Delivery] = []
        self.lost = 0
        self.progress = Progress.create(uuid.uuid4().hex, 1)
        self.progress.remove()
        self.service = Heartbeat(
            broker,
            store,
            lease,
            SYSTEM_CLOCK,
            self.progress,
            interval=interval,
            recovered=self.recovered.extend,
            lost=self._lost,
        )
        self.service.start()

    def _lost(self) -> None:
        self.lost += 1


def test_a_lease_lives_as_long_as_its_heartbeat(engine: Engine, wait_until: Callable[..., None]) -> None:
    lease = LEASE._replace(seconds=0.5)
    leased(engine, 1, seconds=0.5)
    beat = Beat(engine.broker, lease=lease)
    end = time.monotonic() + 1.2
    wait_until(lambda: time.monotonic() > end, what="two leases' time")
    assert engine.broker is not None
    assert engine.broker.recover(Lease(("q",), "heir", 10, 30.0), time.time()) == []
    assert beat.lost == 0
    stop(beat.service)


def test_leases_that_went_to_others_are_told(engine: Engine, wait_until: Callable[..., None]) -> None:
    leased(engine, 1, seconds=0.01)
    assert engine.broker is not None
    heir = Lease(("q",), "heir", 10, 30.0)
    wait_until(lambda: engine.broker and engine.broker.recover(heir, time.time()), what="the heir to take over")
    beat = Beat(engine.broker, lease=LEASE._replace(seconds=0.4))
    wait_until(lambda: beat.lost, what="the loss to be told")
    # Nothing makes them look like its own again.
    wait_until(lambda: not beat.progress.slot(0).is_leased(), what="its executors to see it")
    stop(beat.service)
    assert beat.lost == 1


def test_executors_see_that_a_lease_lapsed_and_that_it_stands_again(
    engine: Engine, wait_until: Callable[..., None]
) -> None:
    flaky = Flaky(engine.broker)
    beat = Beat(flaky, lease=LEASE._replace(seconds=0.4))
    slot = beat.progress.slot(0)
    assert slot.is_leased()
    flaky.failures = 10_000
    wait_until(lambda: not slot.is_leased(), what="the lease to lapse")
    flaky.failures = 0
    wait_until(slot.is_leased, what="the lease to stand again")
    stop(beat.service)
    assert beat.lost == 0


def test_what_a_dead_owner_left_is_taken_over(engine: Engine, wait_until: Callable[..., None]) -> None:
    left = leased(engine, 3, owner="dead", seconds=0.01)
    beat = Beat(engine.broker)
    wait_until(lambda: len(beat.recovered) == 3, what="three deliveries")
    stop(beat.service)
    assert {d.id for d in beat.recovered} == {d.id for d in left}
    assert {d.former_owner for d in beat.recovered} == {"dead"}
    assert all(d.token == 2 for d in beat.recovered)


def test_a_heartbeat_survives_a_broker_that_is_away(
    engine: Engine, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    caplog.set_level(logging.ERROR, "umbel.worker")
    leased(engine, 1, owner="dead", seconds=0.01)
    broken = Flaky(engine.broker, failures=3)
    beat = Beat(broken)
    wait_until(lambda: beat.recovered, what="the first delivery after the failures")
    stop(beat.service)
    assert "the disk is away" in caplog.text


def test_a_body_that_nobody_published_is_published_and_confirmed(
    engine: Engine, wait_until: Callable[..., None]
) -> None:
    broker, store = engine.broker, engine.store
    assert broker is not None
    assert store is not None
    now = time.time()
    store.join([Part("lost", 0, b"", 1, sent("body")), Part("open", 0, b"", 2, sent("other"))], now - 60)
    store.join([Part("fresh", 0, b"", 1, sent("later"))], now + 60)
    beat = Beat(broker, store)
    lease = Lease(("flow",), "me", 10, 30.0)
    wait_until(lambda: broker.depth(["flow"], now)["flow"].ready, what="the body")
    wait_until(lambda: not store.unconfirmed(now), what="the confirmation")
    stop(beat.service)
    assert [delivery.id for delivery in broker.lease(lease, now)] == ["body"]
    assert [joined.group for joined in store.unconfirmed(now + 120)] == ["fresh"]


def test_a_body_that_cannot_be_published_stays_unconfirmed_and_holds_up_no_other(
    engine: Engine, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    store = engine.store
    assert store is not None
    bodies = [sent("lost", exchange="nowhere"), sent("body")]
    store.join([Part(body.id, 0, b"", 1, body) for body in bodies], time.time() - 60)
    beat = Beat(engine.broker, store)
    wait_until(lambda: "nowhere" in caplog.text, what="the trouble to be told")
    stop(beat.service)
    assert [joined.group for joined in store.unconfirmed(time.time())] == ["lost"]


def sent(id_: str, exchange: str = "") -> Message:
    return Message(id_, "umbel.join", "flow", b"{}", b"[]", exchange)


# --- any service ---------------------------------------------------------------------------------------------


class Failing(Service):
    """Ends with an error."""

    name = "failing"

    def run(self) -> None:
        """Fail."""
        raise RuntimeError("bug")


def test_a_loop_that_fails_tells_its_session(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, BaseException]] = []
    service = Failing()
    service.failed = lambda name, exc: told.append((name, exc))
    service.start()
    assert service.join(10.0)
    assert [(name, str(exc)) for name, exc in told] == [("failing", "bug")]
    assert "The worker's failing failed" in caplog.text


def test_a_trouble_that_lasts_is_told_once_for_all_and_then_ever_rarer(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for what in ("The feeder", "The heartbeat", "The feeder"):
        troubles.tell(what, OperationalError("the disk is away"))
    troubles.tell("The heartbeat", OperationalError("the disk is full"))
    assert [record.getMessage() for record in caplog.records] == [
        "The feeder: the disk is away",
        "The heartbeat: the disk is full",
    ]
    troubles.over()
    troubles.over()
    troubles.tell("The feeder", OperationalError("the disk is away"))
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING", "ERROR"]
