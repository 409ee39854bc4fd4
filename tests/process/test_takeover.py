"""What a killed consumer held comes back at once: its supervisor knows that it is dead, no lease has to lapse."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait

pytestmark = pytest.mark.timeout(90)
LEASE = 120.0


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_work_of_a_killed_consumer_is_taken_over_long_before_its_lease_ends(redis_lab: Lab, start_method: str) -> None:
    lab = redis_lab
    gate = Path(lab.folder) / "gate"
    settings = {"worker_lease": LEASE, "worker_heartbeat": 5.0, "worker_pool_start_method": start_method}
    worker = lab.worker(settings=settings)
    ids = [lab.send("lab.held", str(gate)) for _ in range(6)]
    lab.wait_started(ids[0])
    began = time.monotonic()
    assert worker.kill_consumer()
    gate.touch()
    finals = lab.wait_states(ids, 30)
    assert time.monotonic() - began < LEASE / 4
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    wait(lambda: worker.said("Took over"), 5, "the word of the heir")
    lab.prove(Rules(late=True))
