"""Two workers of one name do their work, and both say that nobody can tell them apart."""

from __future__ import annotations

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait


@pytest.mark.parametrize("engine", ["lab", "redis_lab", "rabbit_lab"])
def test_workers_of_one_name_say_so_and_work(request: pytest.FixtureRequest, engine: str) -> None:
    lab: Lab = request.getfixturevalue(engine)
    first = lab.worker("-n", "same@here")
    lab.wait_states(lab.send_many("lab.work", 3, 0.0))
    assert not first.said("Another worker")
    second = lab.worker("-n", "same@here")
    for worker, other in ((first, second), (second, first)):
        said = f"Another worker is called same@here too (process {other.pid} on "
        wait(lambda worker=worker, said=said: worker.said(said), 20, f"{worker.name} to hear of the other")
    lab.wait_states(lab.send_many("lab.work", 20, 0.01))
    lab.prove(Rules())


def test_a_worker_whose_consumer_died_is_not_its_own_namesake(lab: Lab) -> None:
    worker = lab.worker("-n", "same@here")
    worker.kill_consumer()
    wait(worker.consumer, 10, "the consumer's successor")
    lab.wait_states(lab.send_many("lab.work", 3, 0.0))
    assert not worker.said("Another worker")
