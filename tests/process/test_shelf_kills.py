"""RabbitMQ with results elsewhere: workers die, fail or stop for long at each step that the shelf takes part in."""

from __future__ import annotations

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

#: What the consumer passes when early-acknowledged tasks start and end: adopting, acknowledging, storing, settling.
#: (Between adopting and acknowledging a death repeats tasks with Redis as the shelf, which keeps no index of ids; with
#: SQLite it does not: tests/engines/test_shelf_faults.py.)
STEPS = ["adopt.before", *(f"{name}.{when}" for name in ("settle", "put") for when in ("before", "after"))]


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
    lab.prove(Rules(late=False, unsettled=3.0))
    for worker in lab.workers:
        if worker.process.poll() is None:
            worker.stop()
            worker.wait_exit(15)
