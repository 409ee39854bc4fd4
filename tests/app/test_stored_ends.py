"""Messages that come again although their task has ended: what follows from the state is sent, nothing is run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, job_of, make_app
from umbel import chord
from umbel.app import signals
from umbel.app.records import record_of
from umbel.core.message import End, Record


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    app = make_app(tmp_path)
    app.ran = []

    @app.task(name="kit.add")
    def add(*numbers: int) -> int:
        app.ran.append(numbers)
        return sum(numbers)

    @app.task(name="kit.total")
    def total(values: list[int]) -> list[int]:
        return values

    yield app
    app.close()


def stored(app: Any, task_id: str, state: str, value: Any) -> None:
    """Store what a worker that died had stored."""
    now = time.time()
    assert app.store.put([record_of(app, task_id, state, value, now=now)], now) == []


def test_callbacks_and_the_rest_of_a_chain_get_the_stored_value(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    linked = add.s(100).set(task_id="linked")
    result = (add.s(1, 1).set(link=linked) | add.s(10)).apply_async()
    stored(app, result.parent.id, "SUCCESS", 5)
    report = worker.step(verdict="ended")
    assert report is not None
    assert (report.end, report.record, report.kind) == (End.DONE, None, "ended")
    assert "had ended (success)" in report.log
    worker.drain(20)
    assert sorted(app.ran) == [(5, 10), (5, 100)]
    assert (result.get(timeout=5), result.parent.result) == (15, 5)


@pytest.mark.parametrize("verdict", ["ended", "lost"])
def test_a_chord_hears_of_the_stored_value(app: Any, worker: MiniWorker, verdict: str) -> None:
    # As where messages are elsewhere: in one database a lost task has not ended.
    app.conf.result_backend = f"sqlite:///{app.conf.broker_url.partition(':///')[2]}-results"
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chord([add.s(1), add.s(2)], app=app)(total.s())
    (first, second) = worker.lease()
    stored(app, first.id, "SUCCESS", 7)

    worker.commit(first, worker.runner.run(job_of(first, verdict=verdict)))
    worker.commit(second, worker.runner.run(job_of(second)))
    worker.drain(20)
    assert result.get(timeout=5) == [7, 2]
    assert app.ran == [(2,)]


def test_a_stored_failure_calls_errbacks_and_fails_the_rest(app: Any, worker: MiniWorker) -> None:
    add, told = app.tasks["kit.add"], []

    @app.task(name="kit.note")
    def note(task_id: str) -> None:
        told.append(task_id)

    result = (add.s(1).on_error(note.s()) | add.s(2)).apply_async()
    stored(app, result.parent.id, "FAILURE", ValueError("stored"))
    worker.step(verdict="ended")
    worker.drain(20)
    assert told == [result.parent.id]
    assert (result.state, app.ran) == ("FAILURE", [])
    with pytest.raises(ValueError, match="stored"):
        result.get(timeout=5)


def test_handlers_and_signals_are_not_called_again(app: Any, worker: MiniWorker) -> None:
    called: list[str] = []

    def note(signal: Any = None, **_: Any) -> None:
        called.append(signal.name)

    for signal in (signals.task_prerun, signals.task_postrun, signals.task_success):
        signal.connect(note, weak=False)
    try:
        sent = app.tasks["kit.add"].delay(1)
        stored(app, sent.id, "SUCCESS", 1)
        worker.step(verdict="ended")
    finally:
        for signal in (signals.task_prerun, signals.task_postrun, signals.task_success):
            signal.disconnect(note)
    assert called == []


def test_a_task_whose_state_is_gone_meanwhile_goes_back_and_runs(app: Any, worker: MiniWorker) -> None:
    sent = app.tasks["kit.add"].delay(3, 4)
    report = worker.step(verdict="ended")
    assert report is not None
    assert report.end == End.RELEASE
    worker.drain(5)
    assert sent.get(timeout=5) == 7


def test_a_state_that_cannot_be_read_is_a_failure_for_those_who_wait(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    result = (add.s(1) | add.s(2)).apply_async()
    app.store.put([Record(result.parent.id, "SUCCESS", b"\x80 not to be read")], time.time())
    worker.step(verdict="ended")
    worker.drain(20)
    assert (result.state, app.ran) == ("FAILURE", [])
