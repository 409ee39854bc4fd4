"""SIGKILL of each kind of process, twenty times at random moments under load: nothing is lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, Worker, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

KILLS = 20
MODES = [pytest.param("lab.work_late", True, id="late"), pytest.param("lab.work", False, id="early")]


@pytest.mark.parametrize(("task", "late"), MODES)
def test_executors_are_killed_at_random_moments(lab: Lab, task: str, late: bool) -> None:
    worker = lab.worker()
    load = lab.load(task, shortest=0.0, longest=0.03)
    lab.random_kills(KILLS, lambda: worker.kill_executor(lab.rng))
    load.stop()
    verdict = lab.prove(Rules(late=late))
    assert verdict.acknowledged > KILLS
    assert worker.process.poll() is None


@pytest.mark.parametrize(("task", "late"), MODES)
def test_consumers_are_killed_at_random_moments(lab: Lab, task: str, late: bool) -> None:
    worker: Worker | None = None
    load = lab.load(task, shortest=0.0, longest=0.03)
    for _ in range(KILLS // 5):
        # A worker whose consumer dies again and again waits longer and longer: five deaths each are enough.
        if worker is not None:
            worker.stop(signal.SIGTERM)
            assert worker.wait_exit() == 0
        worker = lab.worker()
        lab.random_kills(5, worker.kill_consumer)
        wait(worker.consumer, 10, "the consumer's successor")
    load.stop()
    verdict = lab.prove(Rules(late=late))
    assert verdict.killed_runs > 0


@pytest.mark.parametrize(("task", "late"), MODES)
def test_supervisors_are_killed_at_random_moments(lab: Lab, task: str, late: bool) -> None:
    load = lab.load(task, shortest=0.0, longest=0.03)
    for _ in range(KILLS):
        worker = lab.worker(ready=False)
        before = lab.journal.count("start")
        wait(lambda before=before: lab.journal.count("start") > before, 20, "progress between kills")
        time.sleep(lab.rng.uniform(0.0, 0.2))
        worker.kill()
    load.stop()
    lab.worker()
    verdict = lab.prove(Rules(late=late))
    assert verdict.killed_runs > 0
