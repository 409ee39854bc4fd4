"""On Redis and RabbitMQ: SIGKILL of each kind of process at random moments under load, and orderly shutdowns."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.checker import Rules
from tests.process.freezing import thaw, wake_after_takeover
from tests.process.lab import Lab, wait

pytestmark = pytest.mark.timeout(90)

KILLS = 5
MODES = [pytest.param("lab.work_late", True, id="late"), pytest.param("lab.work", False, id="early")]


@pytest.mark.parametrize(("task", "late"), MODES)
def test_executors_are_killed_at_random_moments(broker_lab: Lab, task: str, late: bool) -> None:
    worker = broker_lab.worker()
    load = broker_lab.load(task, shortest=0.0, longest=0.03)
    broker_lab.random_kills(KILLS, lambda: worker.kill_executor(broker_lab.rng))
    load.stop()
    assert broker_lab.prove(Rules(late=late)).acknowledged > KILLS
    assert worker.process.poll() is None


@pytest.mark.parametrize(("task", "late"), MODES)
def test_consumers_are_killed_at_random_moments(broker_lab: Lab, task: str, late: bool) -> None:
    worker = broker_lab.worker()
    load = broker_lab.load(task, shortest=0.0, longest=0.03)
    broker_lab.random_kills(3, worker.kill_consumer)
    wait(worker.consumer, 10, "the consumer's successor")
    load.stop()
    assert broker_lab.prove(Rules(late=late)).killed_runs > 0


@pytest.mark.parametrize(("task", "late"), MODES)
def test_supervisors_are_killed_at_random_moments(broker_lab: Lab, task: str, late: bool) -> None:
    load = broker_lab.load(task, shortest=0.0, longest=0.03)
    for _ in range(KILLS):
        worker = broker_lab.worker(ready=False)
        enough = broker_lab.journal.count("start") + 1
        wait(lambda: broker_lab.journal.count("start") >= enough, 20, "progress between kills")  # noqa: B023
        time.sleep(broker_lab.rng.uniform(0.0, 0.2))
        worker.kill()
    load.stop()
    broker_lab.worker()
    assert broker_lab.prove(Rules(late=late)).killed_runs > 0


@pytest.mark.parametrize(("task", "late"), MODES)
def test_rolling_restarts_under_load_repeat_nothing(broker_lab: Lab, task: str, late: bool) -> None:
    load = broker_lab.load(task, shortest=0.0, longest=0.02)
    for _ in range(3):
        worker = broker_lab.worker()
        broker_lab.wait_progress(5)
        worker.stop(signal.SIGTERM)
        assert worker.wait_exit() == 0
    load.stop()
    broker_lab.worker()
    assert broker_lab.prove(Rules(late=late)).duplicated == 0


def test_term_to_the_whole_process_group_harms_nothing(broker_lab: Lab) -> None:
    worker = broker_lab.worker()
    ids = broker_lab.send_many("lab.work_late", 6, 0.4)
    broker_lab.wait_started(ids[0])
    for pid in worker.everybody():
        os.kill(pid, signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert broker_lab.journal.count("start") == broker_lab.journal.count("end") > 0
    broker_lab.worker()
    assert broker_lab.prove(Rules(late=True)).duplicated == 0


def test_a_task_that_always_kills_its_process_is_a_dead_letter_and_its_neighbours_are_unharmed(
    broker_lab: Lab,
) -> None:
    broker_lab.worker()
    before = broker_lab.send_many("lab.work_late", 20, 0.005)
    poison = broker_lab.send("lab.die_late")
    early = broker_lab.send("lab.die")
    after = broker_lab.send_many("lab.work_late", 20, 0.005)
    finals = broker_lab.wait_states([*before, poison, early, *after])
    assert broker_lab.journal.ids("start").count(poison) == 3
    assert (finals[poison].state, finals[poison].error) == ("FAILURE", "WorkerLostError")
    wait(lambda: "SIGKILL" in broker_lab.dead().get(poison, ""), 10, "the dead letter")
    assert finals[early].error == "WorkerLostError"
    assert {finals[id].state for id in (*before, *after)} == {"SUCCESS"}
    assert broker_lab.journal.ids("start").count(early) == 1
    broker_lab.prove(Rules(late=True, may_fail=frozenset({early})))


def test_a_task_longer_than_its_lease_and_a_delay_beyond_it_run_once(broker_lab: Lab) -> None:
    short = {"worker_lease": 1.0, "worker_heartbeat": 0.3}
    for _ in range(2):
        broker_lab.worker("-c", "1", settings=short)
    began = time.monotonic()
    delayed = broker_lab.send_many("lab.work_late", 2, 0.0, countdown=3)
    long = broker_lab.send_many("lab.work_late", 2, 2.5)
    broker_lab.wait_states([*long, *delayed])
    starts = [event.t for event in broker_lab.journal.events() if event.what == "start" and event.id in delayed]
    assert 2.9 <= min(starts) - began <= max(starts) - began < 10.0
    assert broker_lab.prove(Rules(late=True)).duplicated == 0


def test_a_long_task_holds_nothing_back(broker_lab: Lab) -> None:
    for _ in range(2):
        broker_lab.worker("-c", "1")
    broker_lab.wait_states(broker_lab.send_many("lab.work_late", 50, 0.0))
    long = broker_lab.send("lab.work_late", 4.0)
    broker_lab.wait_states(broker_lab.send_many("lab.work_late", 7, 0.1), 3)
    assert long not in broker_lab.journal.ids("end")


def freeze(lab: Lab, pids: list[int]) -> None:
    lab.journal.write("pause", pids=pids, session=True)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


#: RabbitMQ gives back what a worker holds when it has not heard of it for two heartbeats.
SHORT = {"worker_lease": 2.0, "worker_heartbeat": 0.5, "broker_heartbeat": 2}


def test_what_a_frozen_worker_held_is_done_by_another_and_the_first_word_stays(broker_lab: Lab) -> None:
    lab = broker_lab
    gate = lab.folder / "gate"
    first = lab.worker("-c", "1", settings=SHORT)
    held = lab.send("lab.held", str(gate))
    lab.wait_started(held)
    pids, executors = first.everybody(), first.executors()
    freeze(lab, pids)
    second = lab.worker("-c", "1", settings=SHORT)
    wait(lambda: lab.journal.count("start") == 2, 20, "the second start")
    gate.touch()
    accepted = lab.wait_states([held])[held]
    lab.wait_states(lab.send_many("lab.work", 5, 0.0))
    # A consumer that wakes first ends its executors.
    thaw(lab, executors)
    wait(lambda: lab.journal.ids("end").count(held) == 2, 15, "the frozen worker to come to its end")
    thaw(lab, pids)
    # The frozen worker is in service again.
    second.stop()
    assert second.wait_exit() == 0
    lab.wait_states([lab.send("lab.work_late", 0.0)])
    verdict = lab.prove(Rules(late=True, unsettled=10.0))
    assert lab.finals([held])[held] == accepted
    assert verdict.duplicated == 1
    assert first.process.poll() is None


def test_early_tasks_of_a_frozen_worker_do_not_run_twice(broker_lab: Lab) -> None:
    lab = broker_lab
    _, finals = wake_after_takeover(lab, SHORT, freeze)
    lab.wait_states(lab.send_many("lab.work", 10, 0.01))
    assert lab.prove(Rules(late=False, unsettled=10.0)).duplicated == 0
    assert lab.finals(list(finals)) == finals
