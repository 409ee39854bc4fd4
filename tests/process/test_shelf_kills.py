"""RabbitMQ with results elsewhere: workers die, fail or stop for long at each step that the shelf takes part in."""

from __future__ import annotations

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait
from tests.process.walk import Point, kind_of, note_fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

#: What is passed when early-acknowledged tasks start and end: adopting, acknowledging, storing, settling. Results are
#: stored by executors that have nothing else to do (short tasks leave them no time for that), else by the consumer.
STEPS = [
    (process, f"{name}.{when}")
    for process, name in (("consumer", "adopt"), ("consumer", "settle"), ("consumer", "put"), ("executor", "put"))
    for when in ("before", "after")
]


@pytest.mark.parametrize("fault", ["kill", "raise", "sleep(2.5)"])
@pytest.mark.parametrize(("process", "step"), STEPS)
def test_no_step_with_the_shelf_breaks_a_promise(rabbit_lab: Lab, process: str, step: str, fault: str) -> None:
    lab, lease = rabbit_lab, {"worker_lease": 1.0, "worker_heartbeat": 0.25}
    fired = lab.faulty_worker(f"{step}={fault}@2", process, lease)
    short = (process, kind_of(step)) == ("consumer", "put")
    ids = lab.send_many("lab.work", 60 if short else 6, 0.0 if short else 0.01)
    wait(fired.exists, 20, f"{step} to be passed")
    note_fault(lab, fired, Point(process), fault)
    lab.worker("-c", "1", settings=lease)
    ids += lab.send_many("lab.work", 3, 0.01)
    lab.wait_states(ids, 30)
    # What was put onto the shelf by a worker that died before it could start it has failed, visibly.
    never_begun = (
        frozenset(ids) - frozenset(lab.journal.ids("start"))
        if (step, fault) == ("adopt.after", "kill")
        else frozenset()
    )
    lab.prove(Rules(late=False, unsettled=3.0, may_fail=never_begun))
    for worker in lab.workers:
        if worker.process.poll() is None:
            worker.stop()
            worker.wait_exit(15)
