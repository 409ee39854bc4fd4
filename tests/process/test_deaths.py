"""Tasks that take their process with them, limits, and executors that are replaced."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, alive, wait

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_a_task_that_always_kills_its_process_is_a_dead_letter_and_its_neighbours_are_unharmed(
    lab: Lab, signum: int
) -> None:
    lab.worker()
    before = lab.send_many("lab.work_late", 30, 0.005)
    poison = [lab.send("lab.die_late", signum) for _ in range(3)]
    after = lab.send_many("lab.work_late", 30, 0.005)
    finals = lab.wait_states([*before, *poison, *after])
    for id in poison:
        assert lab.journal.ids("start").count(id) == 3
        assert (finals[id].state, finals[id].error) == ("FAILURE", "WorkerLostError")
        assert signal.Signals(signum).name in finals[id].dead
    assert {finals[id].state for id in (*before, *after)} == {"SUCCESS"}
    lab.prove(Rules(late=True))


def test_a_late_task_that_dies_twice_succeeds_at_the_third_run(lab: Lab) -> None:
    lab.worker()
    id = lab.send("lab.die_late", signal.SIGKILL, 2)
    assert lab.wait_states([id])[id].state == "SUCCESS"
    assert lab.journal.ids("start").count(id) == 3
    lab.prove(Rules(late=True))


@pytest.mark.parametrize("task", ["lab.die", "lab.die_once_failed"])
def test_an_early_task_that_kills_its_process_has_failed_and_never_runs_again(lab: Lab, task: str) -> None:
    lab.worker()
    ids = lab.send_many(task, 6)
    neighbours = lab.send_many("lab.work", 20, 0.005)
    finals = lab.wait_states([*ids, *neighbours])
    assert {finals[id].error for id in ids} == {"WorkerLostError"}
    assert {finals[id].state for id in neighbours} == {"SUCCESS"}
    assert lab.prove(Rules(late=False)).duplicated == 0


def test_a_crowd_of_poison_leaves_most_of_the_throughput_to_the_others(lab: Lab) -> None:
    lab.worker()
    ids = [id for _ in range(20) for id in (lab.send("lab.die_late"), *lab.send_many("lab.work_late", 5, 0.005))]
    began = time.monotonic()
    lab.wait_states(ids, 25)
    assert time.monotonic() - began < 20
    lab.prove(Rules(late=True))


def test_a_hard_limit_ends_the_task_with_everything_it_started(lab: Lab) -> None:
    lab.worker()
    id = lab.send("lab.family", time_limit=1.0)
    wait(lambda: id in lab.journal.ids("family"), 10, "the grandchildren")
    pids = next(e.more["pids"] for e in lab.journal.events() if e.what == "family")
    assert all(map(alive, pids))
    assert lab.wait_states([id], 5)[id].error == "TimeLimitExceeded"
    wait(lambda: not any(map(alive, pids)), 3, "the end of the family")
    neighbour = lab.send("lab.work")
    assert lab.wait_states([neighbour])[neighbour].state == "SUCCESS"


def test_a_killed_executor_takes_along_what_its_task_started(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    id = lab.send("lab.family")
    wait(lambda: id in lab.journal.ids("family"), 10, "the grandchildren")
    pids = next(e.more["pids"] for e in lab.journal.events() if e.what == "family")
    os.kill(worker.executors()[0], signal.SIGKILL)
    wait(lambda: not any(map(alive, pids)), 5, "the end of the family")
    assert lab.wait_states([id])[id].error == "WorkerLostError"


def test_a_soft_limit_is_raised_in_the_task_which_may_end_in_order(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    executor = worker.executors()
    id = lab.send("lab.soft", soft_time_limit=0.5)
    final = lab.wait_states([id], 10)[id]
    assert (final.state, final.value) == ("SUCCESS", "stopped in time")
    assert worker.executors() == executor


def test_executors_replaced_after_so_many_tasks_lose_and_repeat_nothing(lab: Lab) -> None:
    lab.worker("--max-tasks-per-child", "7")
    ids = lab.send_many("lab.work_late", 200, 0.001)
    lab.wait_states(ids)
    assert lab.prove(Rules(late=True)).duplicated == 0
    pids = [event.pid for event in lab.journal.events() if event.what == "start"]
    assert max(pids.count(pid) for pid in set(pids)) <= 7
    assert len(set(pids)) >= 200 // 7


def test_executors_replaced_because_of_their_memory_lose_and_repeat_nothing(lab: Lab) -> None:
    lab.worker("--max-memory-per-child", str(150 * 1024))
    ids = lab.send_many("lab.eat", 12, 40)
    lab.wait_states(ids)
    assert lab.prove(Rules(late=True)).duplicated == 0
    assert len({event.pid for event in lab.journal.events() if event.what == "start"}) > 2


def test_async_tasks_that_were_running_come_back_after_a_kill(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    ids = lab.send_many("lab.awaited", 20, 1.0)
    wait(lambda: lab.journal.count("start") == 20, 15, "all of them to run at once")
    worker.kill_executor(lab.rng)
    assert {final.state for final in lab.wait_states(ids).values()} == {"SUCCESS"}
    lab.prove(Rules(late=True))


def test_a_worker_killed_whole_is_recovered_within_a_lease(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    lab.worker("-c", "1", settings={"worker_heartbeat": 1.0})
    ids = lab.send_many("lab.work_late", 4, 0.6)
    lab.wait_started(ids[0])
    wait(lambda: worker.executors()[0] in [e.pid for e in lab.journal.events() if e.what == "start"], 10, "both")
    worker.kill()
    began = time.monotonic()
    lab.wait_states(ids)
    assert time.monotonic() - began < 6.0
    lab.prove(Rules(late=True))


def test_a_task_longer_than_its_lease_runs_once(lab: Lab) -> None:
    short = {"worker_lease": 1.0, "worker_heartbeat": 0.3}
    lab.worker("-c", "1", settings=short)
    lab.worker("-c", "1", settings=short)
    ids = lab.send_many("lab.work_late", 2, 4.0)
    lab.wait_states(ids)
    assert lab.prove(Rules(late=True)).duplicated == 0


def test_a_long_task_holds_nothing_back(lab: Lab) -> None:
    lab.worker("-c", "1")
    lab.worker("-c", "1")
    warm = lab.send_many("lab.work_late", 50, 0.0)
    lab.wait_states(warm)
    long = lab.send("lab.work_late", 6.0)
    short = lab.send_many("lab.work_late", 7, 0.1)
    lab.wait_states(short, 4)
    assert long not in lab.journal.ids("end")


def test_a_delay_beyond_the_lease_is_kept_and_runs_once(lab: Lab) -> None:
    short = {"worker_lease": 1.0, "worker_heartbeat": 0.3}
    lab.worker("-c", "1", settings=short)
    lab.worker("-c", "1", settings=short)
    began = time.monotonic()
    ids = lab.send_many("lab.work_late", 3, 0.0, countdown=3)
    lab.wait_states(ids)
    assert min(e.t for e in lab.journal.events() if e.what == "start") - began >= 2.9
    assert lab.prove(Rules(late=True)).duplicated == 0
