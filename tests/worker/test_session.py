"""A whole session (feeder, consumer, settler, heartbeat, executors) in one process, without forking."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.session_kit import Session, make_app
from umbel.app import signals
from umbel.core.errors import SoftTimeLimitExceeded, TimeLimitExceeded

Wait = Callable[..., None]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def app() -> Iterator[Any]:
    made = make_app(result_expires=3600)
    yield made
    made.close()


def waiting(app: Any) -> int:
    return sum(d.ready + d.scheduled + d.leased for d in app.broker.depth([], time.time()).values())


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
def test_plain_and_asynchronous_tasks_run_in_every_pool(app: Any, pool: str) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="later")
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x * 10

    @app.task(name="fails")
    def fails() -> None:
        raise KeyError("here")

    results = [add.delay(n, 1) for n in range(20)]
    slow = [later.delay(n) for n in range(10)]
    failed = fails.delay()
    with Session(app, pool=pool, concurrency=4) as session:
        assert [r.get(timeout=10) for r in results] == [n + 1 for n in range(20)]
        assert [r.get(timeout=10) for r in slow] == [n * 10 for n in range(10)]
        with pytest.raises(KeyError, match="here"):
            failed.get(timeout=10)
        assert session.stop() == 0
        assert [note.what for note in session.told()] == ["ready"]
    assert waiting(app) == 0


def test_the_asyncio_pool_runs_as_many_at_once_as_its_concurrency(app: Any) -> None:
    together: list[asyncio.Event] = []

    @app.task(name="meet")
    async def meet() -> int:
        together.append(asyncio.Event())
        if len(together) == 8:
            for event in together:
                event.set()
        await together[-1].wait() if len(together) < 8 else None
        return len(together)

    results = [meet.delay() for _ in range(8)]
    with Session(app, pool="asyncio", concurrency=8):
        assert [r.get(timeout=10) for r in results] == [8] * 8


def test_a_retry_runs_again_and_a_chain_goes_on(app: Any) -> None:
    runs: list[int] = []

    @app.task(name="flaky", bind=True, default_retry_delay=0)
    def flaky(self: Any) -> str:
        runs.append(self.request.retries)
        if len(runs) < 3:
            raise self.retry(countdown=0)
        return "done"

    @app.task(name="loud")
    def loud(word: str) -> str:
        return word.upper()

    second = loud.s()
    second.set(task_id="second")
    flaky.apply_async(link=second)
    with Session(app):
        assert app.AsyncResult("second").get(timeout=10) == "DONE"
    assert runs == [0, 1, 2]


def test_limits_are_raised_in_threads(app: Any) -> None:
    @app.task(name="soft")
    def soft() -> str:
        try:
            spin()
        except SoftTimeLimitExceeded:
            return "cleaned up"

    @app.task(name="hard")
    def hard() -> None:
        spin()

    @app.task(name="async_soft")
    async def async_soft() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            return "cleaned up too"
        return "never"

    softly, hardly = soft.apply_async(soft_time_limit=0.1), hard.apply_async(time_limit=0.1)
    waits = async_soft.apply_async(soft_time_limit=0.1)
    with Session(app, concurrency=3):
        assert softly.get(timeout=10) == "cleaned up"
        with pytest.raises(TimeLimitExceeded):
            hardly.get(timeout=10)
        assert waits.get(timeout=10) == "cleaned up too"


def spin() -> Any:
    """Keep a thread busy in Python code, where an exception can reach it."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.001)
    raise AssertionError("nobody stopped it")


def test_what_is_revoked_or_expired_before_its_turn_does_not_run(app: Any, wait_until: Wait) -> None:
    ran: list[str] = []

    @app.task(name="job")
    def job(name: str) -> None:
        ran.append(name)

    revoked, expired, kept = job.delay("revoked"), job.apply_async(("expired",), expires=0.001), job.delay("kept")
    app.control.revoke(revoked.id)
    end = time.time() + 0.01
    wait_until(lambda: time.time() > end, what="the expiry")
    with Session(app):
        kept.get(timeout=10)
        wait_until(expired.ready, what="the end of the expired one")
    assert (revoked.state, expired.state) == ("REVOKED", "REVOKED")
    assert ran == ["kept"]


def test_a_rate_limit_spaces_the_runs_and_can_be_lifted(app: Any, wait_until: Wait) -> None:
    begun: list[float] = []

    @app.task(name="limited", rate_limit="10/s")
    def limited() -> None:
        begun.append(time.monotonic())

    for _ in range(4):
        limited.delay()
    with Session(app, concurrency=4) as session:
        wait_until(lambda: len(begun) == 4, what="four runs")
        gaps = [b - a for a, b in itertools.pairwise(begun)]
        assert min(gaps) > 0.05
        assert begun[-1] - begun[0] > 0.25
        session.consumer.feeder.set_rate("limited", None)
        more = [limited.delay() for _ in range(30)]
        for result in more:
            result.get(timeout=2)


def test_tasks_that_a_rate_limit_holds_back_are_seen_and_lose_nothing_at_a_stop(app: Any, wait_until: Wait) -> None:
    ran: list[int] = []

    @app.task(name="limited", rate_limit="1.5/s")
    def limited(number: int) -> None:
        ran.append(number)

    results = [limited.delay(n) for n in range(3)]
    with Session(app) as session:
        wait_until(lambda: app.control.ping(timeout=0.2, limit=1), what="an answer")
        ask = app.control.inspect(destination="kit@host")
        wait_until(ask.scheduled, what="one held back")
        assert ask.scheduled()[0]["request"]["name"] == "limited"
        found = ask.query_task([r.id for r in results])
        assert {state for state, _row in found.values()} == {"scheduled"}
        assert session.stop() == 0
    assert waiting(app) + len(ran) == 3


def test_a_task_that_nobody_knows_ends_among_the_dead_letters(
    app: Any, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    app.send_task("stranger")
    with Session(app, unknown_task_wait=0.1):
        wait_until(app.dead.browse, what="a dead letter")
    (letter,) = app.dead.browse()
    assert "stranger" in letter.reason
    assert "not one of this worker's" in caplog.text


def test_a_warm_stop_lets_running_tasks_end_and_leaves_the_rest(app: Any, wait_until: Wait) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="long")
    def long() -> str:
        begun.set()
        go.wait(10)
        return "finished"

    @app.task(name="never")
    def never() -> None:
        raise AssertionError

    with Session(app, concurrency=1) as session:
        first = long.delay()
        assert begun.wait(10)
        never.delay()
        stopper = threading.Timer(0.2, go.set)
        stopper.start()
        assert session.stop() == 0
        assert first.get(timeout=1) == "finished"
    assert waiting(app) == 1


@pytest.mark.parametrize(("acks_late", "state", "left"), [(False, "FAILURE", 0), (True, "PENDING", 1)])
def test_a_cold_stop_does_not_wait_for_a_thread(
    app: Any, acks_late: bool, state: str, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="stuck", acks_late=acks_late)
    def stuck() -> None:
        begun.set()
        go.wait(20)

    result = stuck.delay()
    with Session(app) as session:
        assert begun.wait(10)
        assert session.stop(0.0) == 0
    assert result.state == state
    assert waiting(app) == left
    assert "the time for shutting down is over" in caplog.text
    go.set()


def test_a_session_whose_supervisor_is_gone_ends(app: Any, wait_until: Wait) -> None:
    with Session(app) as session:
        wait_until(session.told, what="ready")
        session.hang_up()
        assert session.wait() == 1


def test_a_session_that_lost_its_leases_ends_and_says_so(
    app: Any, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="held")
    def held() -> None:
        threading.Event().wait(1.0)

    held.delay()
    with Session(app, lease=0.4, heartbeat=0.2) as session:
        broker = app.broker
        wait_until(session.consumer.crew.busy, what="the task to be running")
        original = broker.extend
        broker.extend = lambda *args: False
        try:
            assert session.wait() == 2
        finally:
            broker.extend = original
    assert "went to others; starting afresh" in caplog.text


def test_info_lines_name_the_task_they_are_about(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "celery.worker")

    @app.task(name="noted")
    def noted() -> None: ...

    @app.task(name="noted_async")
    async def noted_async() -> None: ...

    results = [noted.delay(), noted_async.delay()]
    with Session(app):
        for result in results:
            result.get(timeout=10)
    for result, name in zip(results, ("noted", "noted_async"), strict=True):
        records: list[Any] = [r for r in caplog.records if getattr(r, "task_id", None) == result.id]
        assert [r.task_name for r in records] == [name, name]
        assert records[0].getMessage() == f"Task {name}[{result.id}] received"
        assert "succeeded in" in records[1].getMessage()
        assert records[1].data["id"] == result.id


def test_receivers_of_task_received_hear_each_delivery(app: Any) -> None:
    heard: list[str] = []

    @app.task(name="heard")
    def job() -> None: ...

    def on_received(request: Any, **_: Any) -> None:
        heard.append(request.id)

    signals.task_received.connect(on_received)
    try:
        result = job.delay()
        with Session(app):
            result.get(timeout=10)
    finally:
        signals.task_received.disconnect(on_received)
    assert heard == [result.id]


def test_a_worker_answers_what_it_is_asked(app: Any, wait_until: Wait) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="busy", rate_limit="100/s")
    def busy() -> None:
        begun.set()
        go.wait(10)

    with Session(app) as session:
        result = busy.delay()
        assert begun.wait(10)
        wait_until(lambda: app.control.ping(timeout=0.2, limit=1), what="an answer")
        ask = app.control.inspect(destination="kit@host")
        assert [row["id"] for row in ask.active()] == [result.id]
        assert ask.query_task(result.id)[result.id][0] == "active"
        assert ask.query_task("another") == {}
        assert ask.reserved() == []
        # Shared tasks of other tests' apps may be lent to this one.
        assert "busy [rate_limit=100/s]" in ask.registered()
        assert "busy [name=busy]" in ask.registered("name")
        assert ask.active_queues()[0]["exchange"]["type"] == "direct"
        assert ask.conf()["broker_url"] == "memory://"
        assert len(ask.conf(with_defaults=True)) > len(ask.conf())
        assert "python" in ask.report()["ok"]
        assert ask.stats()["rusage"]["maxrss"] > 0
        go.set()
        assert session.stop() == 0
