"""The ladder: TERM finishes what runs and hands back the rest; QUIT and a second TERM do not wait."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait

pytestmark = pytest.mark.timeout(60)


def crashes(lab: Lab) -> int:
    """How many process deaths the waiting messages count."""
    import sqlite3

    with sqlite3.connect(lab.file) as connection:
        return int(connection.execute("SELECT coalesce(sum(crashes), 0) FROM message").fetchone()[0])


@pytest.mark.parametrize("task", ["lab.work", "lab.work_late"])
def test_term_under_load_finishes_what_runs_and_hands_back_the_rest(lab: Lab, task: str) -> None:
    worker = lab.worker()
    ids = lab.send_many(task, 300, 0.02)
    wait(lambda: lab.journal.count("start") > 20, 15, "some progress")
    worker.stop(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert lab.journal.count("start") == lab.journal.count("end") < len(ids)
    depth = lab.app.broker.depth(["celery"], time.time())["celery"]
    assert (depth.ready, depth.leased) == (len(ids) - lab.journal.count("end"), 0)
    assert crashes(lab) == 0
    lab.worker()
    assert lab.prove(Rules(late=task.endswith("late"))).duplicated == 0


def test_rolling_restarts_under_load_repeat_nothing(lab: Lab) -> None:
    load = lab.load("lab.work_late", shortest=0.0, longest=0.02)
    for _ in range(6):
        worker = lab.worker()
        before = lab.journal.count("end")
        wait(lambda before=before: lab.journal.count("end") > before + 5, 15, "progress")
        worker.stop(signal.SIGTERM)
        assert worker.wait_exit() == 0
    load.stop()
    lab.worker()
    assert lab.prove(Rules(late=True)).duplicated == 0


@pytest.mark.parametrize("task", ["lab.work", "lab.work_late"])
def test_term_to_the_whole_process_group_harms_nothing(lab: Lab, task: str) -> None:
    worker = lab.worker()
    ids = lab.send_many(task, 4, 0.5)
    lab.wait_started(ids[0])
    pids = worker.everybody()
    assert len(pids) == 4
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert lab.journal.count("start") == lab.journal.count("end") > 0
    lab.worker()
    assert lab.prove(Rules(late=task.endswith("late"))).duplicated == 0


def test_when_the_grace_is_over_a_late_task_goes_back_and_no_attempt_is_used(lab: Lab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = lab.worker(settings={"worker_shutdown_grace": 1.0})
    id = lab.send("lab.held", str(gate))
    lab.wait_started(id)
    lab.journal.write("kill", pids=worker.executors())
    began = time.monotonic()
    worker.stop(signal.SIGTERM)
    worker.wait_exit()
    assert 0.9 < time.monotonic() - began < 4.0
    assert crashes(lab) == 0
    assert lab.waiting() == 1
    gate.touch()
    lab.worker()
    assert lab.prove(Rules(late=True)).duplicated == 1


def test_when_the_grace_is_over_an_early_task_ends_as_lost(lab: Lab) -> None:
    worker = lab.worker(settings={"worker_shutdown_grace": 0.5})
    id = lab.send("lab.work", 30.0)
    lab.wait_started(id)
    lab.journal.write("kill", pids=worker.executors())
    worker.stop(signal.SIGTERM)
    worker.wait_exit(10)
    lab.prove(Rules(late=False))
    assert lab.finals([id])[id].error == "WorkerLostError"


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM]], ids=["quit", "term-twice"])
def test_a_cold_shutdown_does_not_wait(lab: Lab, signals: list[int]) -> None:
    worker = lab.worker()
    late, early = lab.send("lab.work_late", 30.0), lab.send("lab.work", 30.0)
    lab.wait_started(late)
    lab.wait_started(early)
    lab.journal.write("kill", pids=worker.executors())
    began = time.monotonic()
    for number, signum in enumerate(signals):
        if number:
            wait(lambda: worker.said("shutdown"), 5, "the first signal to be seen")
            time.sleep(0.2)  # sooner the same signal is taken for an echo of the first
        worker.stop(signum)
    assert worker.wait_exit(10) == 1
    assert time.monotonic() - began < 5
    lab.drain_but(1)
    finals = lab.finals([late, early])
    assert finals[early].error == "WorkerLostError"
    assert late not in finals
    assert crashes(lab) == 0


def test_an_idle_worker_stops_at_once(lab: Lab) -> None:
    worker = lab.worker()
    began = time.monotonic()
    worker.stop(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert time.monotonic() - began < 2
    assert "Traceback" not in worker.text()
