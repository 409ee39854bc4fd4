"""What happens when the machine refuses: full disks, locked files, no descriptors, results that cannot be written."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.process.checker import Rules
from tests.process.forked import publish_forked
from tests.process.jobs import make_app
from tests.process.lab import SETTINGS, Lab, alive, wait

pytestmark = pytest.mark.timeout(60)


def test_producers_forked_after_the_first_publish_store_everything(lab: Lab) -> None:
    published = publish_forked(lab, 100)
    assert lab.waiting() == published == 501
    lab.worker()
    assert lab.prove(Rules()).acknowledged == published


REPEATED = """
from umbel.app.ids import new_id
for number in range(5):
    id = new_id()
    journal.write(os.environ["LAB_JOURNAL"], "intended", id)
    app.tasks["lab.work"].apply_async((0.0,), task_id=id, retry=True)
    journal.write(os.environ["LAB_JOURNAL"], "returned", id)
"""


def test_a_publish_whose_reply_is_lost_is_retried_and_stored_once(lab: Lab) -> None:
    producer = lab.python(REPEATED, UMBEL_FAILPOINTS="publish.after=raise@3")
    out, _ = producer.communicate(timeout=20)
    assert producer.returncode == 0, out
    assert lab.waiting() == 5
    lab.worker()
    assert lab.prove(Rules()).duplicated == 0


BULK = """
path = os.environ["LAB_JOURNAL"]
app.send_many("lab.work", [((0.0,), {}) for _ in range(5000)])
"""


def test_a_producer_killed_in_bulk_publishing_leaves_whole_steps_behind(lab: Lab) -> None:
    producer = lab.python(BULK, UMBEL_FAILPOINTS="publish.before=kill@2")
    out, _ = producer.communicate(timeout=20)
    assert producer.returncode == -signal.SIGKILL, out
    stored = lab.waiting()
    assert 0 < stored < 5000
    assert stored % 100 == 0
    lab.worker()
    lab.drain()
    assert lab.journal.count("end") == stored


def test_a_full_disk_delays_outcomes_and_loses_none(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    ids = lab.send_many("lab.work_late", 60, 0.02)
    wait(lambda: lab.journal.count("end") > 5, 10, "progress")
    consumer = worker.consumer()
    resource.prlimit(consumer, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    wait(lambda: worker.said("Cannot store the outcome") or worker.said("cannot be used now"), 10, "the complaint")
    time.sleep(1.0)
    assert worker.consumer() == consumer
    resource.prlimit(consumer, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    finals = lab.wait_states(ids, 30)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert lab.prove(Rules(late=True)).duplicated == 0
    assert worker.consumer() == consumer
    with sqlite3.connect(lab.file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_result_store_that_is_locked_for_a_while_gets_every_result(lab: Lab, tmp_path: Path) -> None:
    results = tmp_path / "results.db"
    url = f"sqlite:///{results}?busy_timeout=0.2"
    lab.app = make_app(lab.url, {**SETTINGS, "result_backend": url})
    worker = lab.worker("-c", "1", settings={"result_backend": url})
    lab.wait_states([lab.send("lab.work_late", 0.0)])
    lock = sqlite3.connect(results, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    ids = lab.send_many("lab.work_late", 20, 0.01)
    wait(lambda: worker.said("Cannot store the outcome"), 10, "the complaint")
    assert lab.finals(ids) == {}
    lock.execute("ROLLBACK")
    lock.close()
    finals = lab.wait_states(ids)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert lab.prove(Rules(late=True)).duplicated == 0


def test_a_queue_that_is_locked_for_a_while_stops_nothing_for_good(lab: Lab) -> None:
    lab.url += "?busy_timeout=0.3"
    worker = lab.worker("-c", "1")
    ids = lab.send_many("lab.work_late", 30, 0.01)
    wait(lambda: lab.journal.count("end") > 3, 10, "progress")
    lock = sqlite3.connect(lab.file, isolation_level=None, timeout=10)
    lock.execute("BEGIN IMMEDIATE")
    wait(lambda: worker.said("locked by others"), 10, "the complaint")
    time.sleep(1.0)
    lock.execute("ROLLBACK")
    lock.close()
    lab.wait_states(ids)
    assert lab.prove(Rules(late=True)).duplicated == 0


def test_a_result_that_cannot_be_written_is_a_failure_that_says_so(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    executors = worker.executors()
    id = lab.send("lab.unwritable")
    neighbour = lab.send("lab.work")
    finals = lab.wait_states([id, neighbour])
    assert finals[id].state == "FAILURE"
    assert "object" in str(finals[id].value)
    assert finals[neighbour].state == "SUCCESS"
    assert worker.executors() == executors


def test_a_huge_result_ends_its_task_and_harms_nothing_else(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    executors = worker.executors()
    id = lab.send("lab.big", 100)
    neighbour = lab.send("lab.work")
    finals = lab.wait_states([id, neighbour], 30)
    assert finals[id].state == "FAILURE"
    assert finals[neighbour].state == "SUCCESS"
    assert worker.executors() == executors


def test_a_worker_out_of_descriptors_keeps_going_with_fewer_and_recovers(lab: Lab) -> None:
    worker = lab.worker("-c", "2")
    lab.wait_states(lab.send_many("lab.work_late", 10, 0.0))
    # What is open stays open; nothing can be opened any more.
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, 4096))
    victim = worker.executors()[0]
    lab.journal.write("kill", pids=[victim])
    os.kill(victim, signal.SIGKILL)
    wait(lambda: worker.said("cannot start executor"), 10, "the complaint")
    ids = lab.send_many("lab.work_late", 10, 0.0)
    lab.wait_states(ids)
    assert len(worker.executors()) == 1
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (4096, 4096))
    wait(lambda: len(worker.executors()) == 2, 15, "the missing executor")
    lab.prove(Rules(late=True))


def test_many_replaced_executors_leave_no_descriptors_behind(lab: Lab) -> None:
    worker = lab.worker("--max-tasks-per-child", "1")
    lab.wait_states(lab.send_many("lab.work_late", 4, 0.0))

    def used() -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (worker.pid, worker.consumer()))

    before = used()
    lab.wait_states(lab.send_many("lab.work_late", 100, 0.0), 40)
    wait(lambda: len(worker.executors()) == 2, 10, "the last executors")
    wait(lambda: used() <= before + 4, 5, f"descriptors as before ({before}, now {used()})")


def test_tasks_do_not_hang_on_a_lock_that_a_thread_held_at_the_fork(lab: Lab) -> None:
    worker = lab.worker("-c", "4", settings={"task_time_limit": 5.0}, LAB_HOG="1")
    ids = lab.send_many("lab.locked", 40)
    finals = lab.wait_states(ids, 40)
    assert {final.state for final in finals.values()} == {"SUCCESS"}, worker.text()[-2000:]


def test_a_worker_whose_queue_file_is_removed_says_so_or_goes_on(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    lab.wait_states(lab.send_many("lab.work", 3))
    lab.app.close()
    for path in lab.folder.glob("queue.db*"):
        if path.is_file():
            path.unlink()
    time.sleep(1.0)
    assert alive(worker.pid)
    worker.stop()
    worker.wait_exit()
