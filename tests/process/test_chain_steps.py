"""Chains on Redis, whose executor goes on by itself from step to step, and dies or loses the server between two."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.process.lab import Lab
from tests.process.nested import NODES, define
from umbel import chain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

SETTINGS = {"worker_lease": 5.0, "worker_heartbeat": 1.0, "worker_max_crashes": 50}
LENGTH = 12
BETWEEN = [f"settle.{when}={fault}" for when in ("before", "after") for fault in ("kill", "raise")]


def run_chain(lab: Lab, rule: str, process: str, *, late: bool) -> tuple[str, dict[str, int]]:
    """Let one process meet a fault at one of its steps; return the last state and how often each step has begun."""
    define(lab.app)
    lab.app.conf.update(SETTINGS)
    node = lab.app.tasks[NODES[late]]
    labels = [f"step{number}" for number in range(LENGTH)]
    last = chain(*(node.si(label, 0.0, "plain") for label in labels), app=lab.app).apply_async()
    fired = lab.faulty_worker(f"{rule}@{lab.rng.randint(2, LENGTH - 2)}", process, SETTINGS)
    state = lab.wait_states([last.id], 30)[last.id].state
    lab.drain(20)
    assert fired.exists(), f"{rule} was never passed"
    assert lab.dead() == {}
    begun = Counter(label.partition("/")[0] for label in lab.journal.ids("start"))
    return state, {label: begun[label] for label in labels}


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("rule", [*BETWEEN, "report.after=kill"])
def test_a_step_that_was_told_of_is_never_run_again(redis_lab: Lab, rule: str, late: bool) -> None:
    state, begun = run_chain(redis_lab, rule, "executor", late=late)
    assert (state, set(begun.values())) == ("SUCCESS", {1})


@pytest.mark.parametrize("rule", ["run.before=kill", "run.after=kill", "report.before=kill"])
def test_a_step_whose_executor_dies_on_the_way_runs_again_and_no_other_does(redis_lab: Lab, rule: str) -> None:
    state, begun = run_chain(redis_lab, rule, "executor", late=True)
    assert state == "SUCCESS"
    assert sorted(begun.values())[:-1] == [1] * (LENGTH - 1)
    assert max(begun.values()) <= 2


def test_an_early_step_whose_executor_dies_ends_the_chain(redis_lab: Lab) -> None:
    state, begun = run_chain(redis_lab, "report.before=kill", "executor", late=False)
    assert state == "FAILURE"
    assert sorted(set(begun.values())) == [0, 1]


def with_a_long_step(lab: Lab, **options: Any) -> tuple[str, str]:
    """Run a chain whose sixth step would last a minute; return the ids of that and of the last one, once it runs."""
    define(lab.app)
    node = lab.app.tasks[NODES[True]]
    steps = [node.si(f"step{number}", 60.0 if number == 5 else 0.0, "plain") for number in range(8)]
    steps[5].set(task_id="long", **options)
    last = chain(*steps, app=lab.app).apply_async()
    lab.worker("-c", "1", settings=SETTINGS)
    lab.wait_started("step5/0")
    return "long", last.id


def test_a_step_that_its_executor_went_on_with_is_seen_and_terminated(redis_lab: Lab) -> None:
    long, last = with_a_long_step(redis_lab)
    (rows,) = redis_lab.app.control.inspect(timeout=10).active().values()
    assert [row["id"] for row in rows] == [long]
    redis_lab.app.control.revoke(long, terminate=True)
    assert {id: final.state for id, final in redis_lab.wait_states([long, last], 15).items()} == {
        long: "REVOKED",
        last: "FAILURE",
    }


def test_a_step_that_its_executor_went_on_with_keeps_to_its_time_limit(redis_lab: Lab) -> None:
    long, last = with_a_long_step(redis_lab, time_limit=0.5)
    assert {final.state for final in redis_lab.wait_states([long, last], 15).values()} == {"FAILURE"}


def test_a_chain_of_longer_steps_lets_others_have_their_turn(redis_lab: Lab) -> None:
    define(redis_lab.app)
    node = redis_lab.app.tasks[NODES[True]]
    last = chain(*(node.si(f"step{number}", 0.1, "plain") for number in range(40)), app=redis_lab.app).apply_async()
    redis_lab.worker("-c", "1", "-Q", "celery,other", settings=SETTINGS)
    redis_lab.wait_started("step1/0")
    other = node.apply_async(("other", 0.0, "plain"), queue="other")
    redis_lab.wait_states([last.id, other.id], 20)
    begun = redis_lab.journal.ids("start")
    assert begun.index("other/0") < begun.index("step35/0")
