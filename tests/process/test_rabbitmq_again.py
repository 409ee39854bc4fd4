"""RabbitMQ delivers a message again whose run has ended, since the acknowledgement was lost with its worker."""

from __future__ import annotations

import time

import pytest

from tests.process.lab import Lab, wait
from umbel.app.ids import new_id
from umbel.core.message import Record
from umbel.engine.registry import open_engine
from umbel.engine.seam import Lease

pytestmark = pytest.mark.timeout(90)


def held_by_one_that_dies(lab: Lab, task_id: str) -> None:
    """Take a message as a worker does that stores the result and dies before it acknowledges."""
    engine = open_engine(lab.deployment.broker)
    assert engine.broker is not None
    held = engine.broker.lease(Lease(("celery",), "killed", 1, 30.0), time.time(), 10.0)
    assert [delivery.id for delivery in held] == [task_id]
    assert lab.app.store is not None
    lab.app.store.put([Record(task_id, "SUCCESS", b'{"status": "SUCCESS", "result": 1}')], time.time())
    engine.close()


def test_a_message_whose_task_has_a_final_state_does_not_run_again(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    ended = lab.send("lab.work", 0.0)
    held_by_one_that_dies(lab, ended)
    fresh = lab.send("lab.work", 0.0)
    lab.worker("-c", "1")
    lab.wait_states([fresh])
    wait(lambda: lab.left() == 0, 10, "the queue to be empty")
    assert lab.journal.ids("start") == [fresh]


def test_an_id_that_somebody_chose_may_have_a_result_of_an_earlier_call(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    nightly = lab.send("lab.work", 0.0, task_id="nightly")
    held_by_one_that_dies(lab, nightly)
    lab.worker("-c", "1")
    wait(lambda: lab.journal.ids("start") == [nightly], 20, "tonight's call to run")


def test_what_follows_from_it_is_sent_although_an_executor_dies_at_that(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    child = new_id()
    ended = lab.send("lab.work", 0.0, link=lab.app.tasks["lab.work"].si(0.0).set(task_id=child))
    held_by_one_that_dies(lab, ended)
    fired = lab.faulty_worker("run.before=kill", "executor")
    lab.wait_states([child], 25)
    assert fired.exists()
    wait(lambda: lab.left() == 0, 10, "the queue to be empty")
    assert lab.journal.ids("start") == [child]
    assert lab.dead() == {}
