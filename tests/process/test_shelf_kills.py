"""RabbitMQ with results elsewhere: workers die, fail or stop for long at each step that the shelf takes part in."""

from __future__ import annotations

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

#: What the consumer passes when early-acknowledged tasks start and end: adopting, acknowledging, storing, settling.
STEPS = [f"{name}.{when}" for name in ("adopt", "settle", "put") for when in ("before", "after")]


@pytest.mark.parametrize("fault", ["kill", "raise", "sleep(2.5)"])
@pytest.mark.parametrize("step", STEPS)
def test_no_step_with_the_shelf_breaks_a_promise(rabbit_lab: Lab, step: str, fault: str) -> None:
    lab, lease = rabbit_lab, {"worker_lease": 1.0, "worker_heartbeat": 0.25}
    fired = lab.folder / "fired"
    faulty = lab.worker(
        "-c",
        "1",
        settings=lease,
        ready=False,
        UMBEL_FAILPOINTS=f"{step}={fault}@2",
        UMBEL_FAILPOINTS_IN="consumer",
        UMBEL_FAILPOINTS_ONCE=str(fired),
    )
    ids = lab.send_many("lab.work", 6, 0.01)
    wait(fired.exists, 20, f"{step} to be passed")
    pids = {event.pid for event in lab.journal.events() if event.what == "start"} | set(faulty.executors())
    if fault == "kill":
        lab.journal.write("kill", pids=sorted(pids), session=True)
    elif fault != "raise":
        lab.journal.write("pause", pids=sorted(pids), session=True)
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
