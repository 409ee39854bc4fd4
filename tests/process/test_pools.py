"""The other pools keep the same promises: their tasks run inside the consumer, which may be killed or stopped."""

from __future__ import annotations

import time

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait

pytestmark = pytest.mark.timeout(60)

POOLS = ["threads", "asyncio", "solo"]
MODES = [pytest.param("lab.work_late", True, id="late"), pytest.param("lab.work", False, id="early")]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("task", "late"), MODES)
def test_a_consumer_killed_with_its_tasks_loses_none(lab: Lab, pool: str, task: str, late: bool) -> None:
    worker = lab.worker("-P", pool, "-c", "3")
    load = lab.load("lab.awaited" if pool == "asyncio" and late else task, shortest=0.0, longest=0.03)
    for _ in range(3):
        before = lab.journal.count("start")
        wait(lambda before=before: lab.journal.count("start") > before + 3, 20, "progress between kills")
        time.sleep(lab.rng.uniform(0.0, 0.2))
        pid = worker.consumer()
        lab.journal.write("kill", pids=[pid], session=True)
        worker.kill_consumer()
    load.stop()
    lab.prove(Rules(late=late))


@pytest.mark.parametrize("pool", POOLS)
def test_term_under_load_finishes_what_runs_and_hands_back_the_rest(lab: Lab, pool: str) -> None:
    worker = lab.worker("-P", pool, "-c", "3")
    ids = lab.send_many("lab.awaited" if pool == "asyncio" else "lab.work_late", 150, 0.05)
    wait(lambda: lab.journal.count("start") > 5, 15, "some progress")
    worker.stop()
    assert worker.wait_exit() == 0
    assert lab.journal.count("start") == lab.journal.count("end")
    assert lab.waiting() == len(ids) - lab.journal.count("end")
    lab.worker("-P", pool, "-c", "3")
    assert lab.prove(Rules(late=True)).duplicated == 0
