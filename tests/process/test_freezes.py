"""A worker that is frozen beyond its lease wakes up as a stale one: its word does not count any more."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.process.checker import Rules
from tests.process.freezing import thaw, wake_after_takeover
from tests.process.lab import Lab, wait

pytestmark = pytest.mark.timeout(60)
SHORT = {"worker_lease": 2.0, "worker_heartbeat": 0.5}


def freeze(lab: Lab, pids: list[int], holder: str = "") -> None:
    """Stop processes between two of their writes: one that stops inside a transaction of SQLite holds its lock, and
    then all others have to wait for it. With the name of a worker as `holder`, while that holds messages.
    """
    lab.journal.write("pause", pids=pids, session=True)
    for _ in range(50):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if is_free(lab.file) and (not holder or holds(lab.file, holder)):
            return
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    pytest.fail("they are always found writing, or holding nothing")


def is_free(file: Path) -> bool:
    """Tell whether somebody else could write now."""
    with closing(sqlite3.connect(file, timeout=0.3, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        return True


def holds(file: Path, worker: str) -> bool:
    """Tell whether a worker has leased messages."""
    query = "SELECT 1 FROM lease JOIN owner ON owner.id = lease.owner WHERE owner.name LIKE ?"
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query, (f"umbel@{worker}:%",)).fetchone() is not None


@pytest.mark.parametrize("whole", [True, False], ids=["worker", "consumer"])
def test_what_a_frozen_worker_held_is_done_by_another_and_its_own_word_is_stale(
    lab: Lab, tmp_path: Path, whole: bool
) -> None:
    gate = tmp_path / "gate"
    first = lab.worker("-c", "1", settings=SHORT)
    id = lab.send("lab.held", str(gate))
    lab.wait_started(id)
    executors = first.executors()
    pids = first.everybody() if whole else [first.consumer()]
    lab.journal.write("pause", pids=executors, session=True)
    freeze(lab, pids)
    second = lab.worker("-c", "1", settings=SHORT)
    wait(lambda: lab.journal.count("start") == 2, 15, "the second start")
    gate.touch()
    wait(lambda: second.executors()[0] in [e.pid for e in lab.journal.events() if e.what == "end"], 15, "an end")
    accepted = lab.wait_states([id])[id]
    thaw(lab, pids)
    wait(lambda: first.said("lapsed"), 15, "the frozen worker to notice")
    more = lab.send("lab.work_late", 0.0)
    lab.wait_states([more])
    # The frozen worker is in service again, with a session that is not stale.
    second.stop()
    assert second.wait_exit() == 0
    last = lab.send("lab.work_late", 0.0)
    lab.wait_states([last])
    verdict = lab.prove(Rules(late=True, unsettled=10.0))
    assert lab.finals([id])[id] == accepted
    assert verdict.duplicated == 1


def test_early_tasks_of_a_frozen_worker_do_not_run_twice(lab: Lab) -> None:
    first = lab.worker("-c", "1", settings=SHORT)
    id = lab.send("lab.work", 1.0)
    lab.wait_started(id)
    pids = first.everybody()
    freeze(lab, pids)
    lab.worker("-c", "1", settings=SHORT)
    assert lab.wait_states([id])[id].error == "WorkerLostError"
    thaw(lab, pids)
    wait(lambda: first.said("lapsed"), 15, "the frozen worker to notice")
    verdict = lab.prove(Rules(late=False, unsettled=10.0))
    assert verdict.duplicated == 0
    assert lab.finals([id])[id].error == "WorkerLostError"


def test_what_waited_in_a_frozen_executor_is_not_begun_there_when_it_wakes(lab: Lab) -> None:
    first, _ = wake_after_takeover(lab, SHORT, freeze)
    wait(lambda: first.said("lapsed"), 15, "the frozen worker to notice")
    assert lab.prove(Rules(late=False, unsettled=10.0)).duplicated == 0


@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
def test_freezes_under_load_repeat_only_what_was_held(lab: Lab, late: bool) -> None:
    workers = [lab.worker("-c", "1", settings=SHORT) for _ in range(2)]
    load = lab.load("lab.work_late" if late else "lab.work", shortest=0.0, longest=0.02, waiting=40)
    for worker in workers:
        before = lab.journal.count("end")
        wait(lambda before=before: lab.journal.count("end") > before + 20, 15, "progress")
        pids = worker.everybody()
        freeze(lab, pids, worker.name)
        other = next(one for one in workers if one is not worker)
        count = other.text().count("Took over")
        wait(lambda other=other, count=count: other.text().count("Took over") > count, 15, "the other to take over")
        thaw(lab, pids)
        seen = worker.text().count("lapsed")
        wait(lambda worker=worker: worker.said("lapsed"), 15, f"the frozen worker to notice ({seen})")
    load.stop()
    lab.prove(Rules(late=late, unsettled=3.0))


def test_suspended_and_resumed_together_workers_go_on(lab: Lab) -> None:
    workers = [lab.worker("-c", "1", settings=SHORT) for _ in range(2)]
    load = lab.load("lab.work_late", shortest=0.0, longest=0.02, waiting=40)
    wait(lambda: lab.journal.count("end") > 20, 15, "progress")
    pids = [pid for worker in workers for pid in worker.everybody()]
    frozen = lab.journal.write("pause", pids=pids, session=True).t
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait(lambda: time.monotonic() - frozen > 3.0, 5, "the leases to lapse")
    thaw(lab, pids)
    load.stop()
    lab.prove(Rules(late=True, unsettled=3.0))
