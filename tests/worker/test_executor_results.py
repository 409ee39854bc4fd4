"""An executor: it stores results by itself where that is its own to do, and begins nothing without a lease."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import KitApp
from umbel.app.execution import Job, Report, Runner
from umbel.core.errors import OperationalError
from umbel.core.message import Record
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.worker.executor import Down, Executor, ExecutorLimits, Up, results_apart
from umbel.worker.frames import FrameReader, pack
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Progress, lease_clock


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    made = KitApp(
        "kit",
        set_as_current=False,
        broker=f"sqlite:///{tmp_path}/broker.db",
        backend=f"sqlite:///{tmp_path}/results.db",
    )

    @made.task(name="double")
    def double(number: int) -> int:
        return number * 2

    yield made
    made.close()


@pytest.fixture
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Progress]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Progress.create("session", 1)
    yield made
    made.remove()


def job(app: Any, number: int, verdict: str = "", task: str = "double") -> Job:
    message = app.client.build(app.tasks[task], (number,), {}, {"task_id": str(number)})
    return Job(number, message.id, task, "celery", "", message.head, message.body, 0, 0, 1, 0, verdict=verdict)


def reports(app: Any, progress: Progress, store: Any, *jobs: Job) -> list[Report]:
    """Give an executor the jobs, all at once, and return what it tells its consumer of them."""
    ours, theirs = socket.socketpair()
    runner = Runner(app, "kit@host", clock=SYSTEM_CLOCK, rng=random.Random(1))
    options = WorkerOptions(hostname="kit@host", concurrency=1)
    with ours, theirs:
        ours.sendall(pack(Down(jobs=list(jobs), retire=True)))
        Executor(app, runner, theirs, progress.slot(0), ExecutorLimits(), options, store=store).serve()
        reader: FrameReader[Up] = FrameReader(Up)
        return [report for frame in reader.drain(ours) for report in frame.reports]


def stored(app: Any, *ids: str) -> dict[str, str]:
    return {id_: record.state for id_, record in app.store.get(ids, time.time()).items()}


def test_the_result_of_the_last_one_is_stored_and_those_before_it_are_the_consumers_to_store_together(
    app: Any, progress: Progress
) -> None:
    first, last = reports(app, progress, results_apart(app.engine), job(app, 1), job(app, 2))
    assert first.record is not None
    assert last.record is None
    assert stored(app, "1", "2") == {"2": "SUCCESS"}
    assert app.AsyncResult("2").get(timeout=1) == 4


def test_what_cannot_be_stored_now_is_the_consumers_to_store(app: Any, progress: Progress) -> None:
    class Away:
        def put(self, records: list[Record], now: float) -> list[str]:
            raise OperationalError("the store is away")

    (report,) = reports(app, progress, Away(), job(app, 1))
    assert report.record is not None
    assert report.record.state == "SUCCESS"


@pytest.mark.parametrize("verdict", ["lost", "timeout", "terminated"])
def test_a_task_whose_process_was_killed_when_its_result_was_stored_has_ended_as_that_says(
    app: Any, progress: Progress, verdict: str
) -> None:
    reports(app, progress, results_apart(app.engine), job(app, 1))
    (report,) = reports(app, progress, results_apart(app.engine), job(app, 1, verdict))
    assert (report.kind, report.record) == ("ended", None)
    assert app.AsyncResult("1").get(timeout=1) == 2


def test_what_has_not_begun_when_the_lease_lapses_waits_until_it_stands_again(app: Any, progress: Progress) -> None:
    slot = progress.slot(0)
    seen: list[tuple[bool, int]] = []

    @app.task(name="lapse")
    def lapse(_number: int) -> None:
        progress.hold(0.0, lease_clock())
        threading.Timer(0.3, progress.hold, (30.0, lease_clock())).start()

    @app.task(name="look")
    def look(_number: int) -> None:
        seen.append((slot.is_leased(), slot.started()))

    first, last = reports(app, progress, None, job(app, 1, task="lapse"), job(app, 2, task="look"))
    assert (first.kind, last.kind) == ("success", "success")
    assert seen == [(True, 2)]


def test_a_store_that_is_the_broker_too_is_left_to_the_consumer(tmp_path: Path) -> None:
    one = KitApp("one", set_as_current=False, broker=f"sqlite:///{tmp_path}/one.db")
    messages = KitApp("messages", set_as_current=False, broker="amqp://guest:guest@localhost:5672//", backend="rpc://")
    assert results_apart(one.engine) is None
    assert results_apart(messages.engine) is None
    one.close()
    messages.close()
