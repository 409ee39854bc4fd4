"""Workflows whose workers die: each finishes, what follows runs once, and with one value for each member."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.process.lab import Lab, Worker, wait
from tests.process.walk import LEASE
from tests.servers import RedisServer
from umbel import chain, chord, group
from umbel.app.ids import new_id
from umbel.core.message import Message

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture(params=["sqlite", "redis"])
def flow_lab(request: pytest.FixtureRequest) -> Lab:
    """Give a lab whose broker and results are one database."""
    lab: Lab = request.getfixturevalue("lab" if request.param == "sqlite" else "redis_lab")
    lab.settings = {**lab.settings, "worker_unknown_task_wait": 1.0, **LEASE, "task_track_started": False}
    lab.app.conf.update(lab.settings)
    return lab


def task(lab: Lab, name: str, *args: Any, **options: Any) -> Any:
    """The signature of a task of the lab."""
    return lab.app.tasks[name].si(*args).set(**options)


def body(lab: Lab) -> Any:
    """The body of a chord, which writes down what it is given."""
    return lab.app.tasks["flow.body"].s()


def starts(lab: Lab, id: str) -> int:
    """How often a task has begun."""
    return lab.journal.ids("start").count(id)


def check_chord(lab: Lab, result: Any, count: int, seconds: float = 45.0) -> None:
    """Hold a chord to its promise: the body ran once, with the value of each member in its place."""
    final = lab.wait_states([result.id], seconds)[result.id]
    assert final.state == "SUCCESS", final
    assert starts(lab, result.id) == 1
    members = [member.id for member in result.parent.results]
    ended = lab.finals(members)
    assert final.value == [ended[member].value for member in members]
    assert [place for place, _ in final.value] == list(range(count))


def check_failed(lab: Lab, result: Any, why: str, seconds: float = 12.0) -> None:
    """Expect a chord to fail for a reason, and soon."""
    final = lab.wait_states([result.id], seconds)[result.id]
    assert (final.state, final.error) == ("FAILURE", "ChordError"), final
    assert why in json.dumps(final.value), final
    assert starts(lab, result.id) == 0


# --- kill -9 in the middle --------------------------------------------------------------------------------


def kill_worker(lab: Lab, worker: Worker) -> bool:
    """Kill a whole worker and start another one."""
    worker.kill()
    lab.worker(ready=False)
    return True


KILLS: dict[str, Callable[[Lab], bool]] = {
    "executor": lambda lab: lab.workers[-1].kill_executor(lab.rng),
    "consumer": lambda lab: lab.workers[-1].kill_consumer(),
    "worker": lambda lab: kill_worker(lab, lab.workers[-1]),
}


@pytest.fixture
def hardy_lab(flow_lab: Lab) -> Lab:
    """Give a lab in which no task is given up, however often the dice let its processes die."""
    flow_lab.settings = {**flow_lab.settings, "worker_max_crashes": 50}
    return flow_lab


@pytest.mark.parametrize("victim", KILLS)
def test_a_chord_of_a_hundred_survives_kills_of_an(hardy_lab: Lab, victim: str) -> None:
    lab = hardy_lab
    result = chord([task(lab, "flow.value", n, 0.02) for n in range(100)], body(lab)).apply_async()
    lab.worker(ready=False)
    lab.random_kills(3, lambda: KILLS[victim](lab))
    check_chord(lab, result, 100)
    lab.drain()


def test_nested_workflows_survive_kills(hardy_lab: Lab) -> None:
    lab = hardy_lab
    results = []
    for _ in range(8):
        inner = chord([task(lab, "flow.value", n, 0.03) for n in range(5)], body(lab))
        header = [inner, chain(task(lab, "flow.value", 0, 0.03), task(lab, "flow.value", 1, 0.03)), inner.clone()]
        results.append(chain(task(lab, "flow.value", "first"), chord(header, body(lab)), body(lab)).apply_async())
    lab.worker(ready=False)
    lab.random_kills(4, lambda: KILLS["executor"](lab))
    lab.random_kills(2, lambda: KILLS["worker"](lab))
    for result in results:
        final = lab.wait_states([result.id], 45)[result.id]
        assert final.state == "SUCCESS", final
        first, step, second = final.value
        assert [place for place, _ in first] == [place for place, _ in second] == list(range(5))
        assert step[0] == 1
        assert starts(lab, result.id) == starts(lab, result.parent.id) == 1
    lab.drain()


# --- members that end in other ways -----------------------------------------------------------------------


def test_an_unknown_member_fails_its_chord(flow_lab: Lab) -> None:
    lab = flow_lab
    unknown = lab.app.signature("flow.nobody", args=())
    result = chord([task(lab, "flow.value", 0), unknown], body(lab)).apply_async()
    lab.worker(ready=False)
    check_failed(lab, result, "flow.nobody")


def test_an_ignored_member_is_none(flow_lab: Lab) -> None:
    lab = flow_lab
    result = chord([task(lab, "flow.value", 0), task(lab, "flow.ignore")], body(lab)).apply_async()
    lab.worker(ready=False)
    final = lab.wait_states([result.id])[result.id]
    assert final.state == "SUCCESS"
    assert final.value[1] is None


def test_members_may_run_for_longer_than_results_are_kept(flow_lab: Lab) -> None:
    lab = flow_lab
    lab.settings = {**lab.settings, "result_expires": 1}
    lab.app.conf.update(lab.settings)
    result = chord([task(lab, "flow.value", 0), task(lab, "flow.value", 1, 3.0)], body(lab)).apply_async()
    lab.worker(ready=False)
    wait(lambda: lab.journal.ids("body") == [result.id], 15, "the body")
    (event,) = (event for event in lab.journal.events() if event.what == "body")
    assert [place for place, _ in event.more["values"]] == [0, 1]


def test_the_death_of_a_member_that_is_acknowledged_early_fails_its_chord(flow_lab: Lab) -> None:
    lab = flow_lab
    result = chord([task(lab, "flow.value", 0), task(lab, "lab.die")], body(lab)).apply_async()
    lab.worker(ready=False)
    check_failed(lab, result, "WorkerLostError")


def test_a_member_that_kills_again_and_again_fails_its_chord(flow_lab: Lab) -> None:
    lab = flow_lab
    result = chord([task(lab, "flow.value", 0), task(lab, "lab.die_late")], body(lab)).apply_async()
    lab.worker(ready=False)
    check_failed(lab, result, "WorkerLostError", 20)
    assert lab.dead()


def expired(lab: Lab, result: Any, member: str) -> None:
    """The member was sent with an end that has passed."""


def revoked(lab: Lab, result: Any, member: str) -> None:
    lab.app.control.revoke(member)


def purged(lab: Lab, result: Any, member: str) -> None:
    assert lab.app.control.purge() == 2


def malformed(lab: Lab, result: Any, member: str) -> None:
    """Put a copy of the member's message without a readable body in the place of the message itself."""
    from umbel.core.message import Settlement
    from umbel.engine.seam import Lease

    found = lab.app.broker.lease(Lease(("celery",), "test", 10, 30.0), time.time(), 1.0)
    (one,) = (delivery for delivery in found if delivery.id == member)
    lab.app.broker.settle("test", [Settlement(each.tag, each.token) for each in found], time.time())
    again = [each for each in found if each is not one]
    spoilt = Message(one.id, one.task, one.queue, one.head, b"\xff\xfe")
    lab.app.broker.publish([*(Message(e.id, e.task, e.queue, e.head, e.body) for e in again), spoilt], time.time())


ENDS = {
    "expired": (expired, "expired"),
    "revoked": (revoked, "revoked"),
    "purged": (purged, "purged"),
    "malformed": (malformed, "InvalidTaskError"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_chord_hears_of_a_member_that_never_began(flow_lab: Lab, how: str) -> None:
    lab = flow_lab
    do, why = ENDS[how]
    member = new_id()
    options = {"expires": 0.01} if how == "expired" else {}
    header = [task(lab, "flow.value", 0), task(lab, "flow.value", 1, task_id=member, **options)]
    result = chord(header, body(lab)).apply_async()
    do(lab, result, member)
    lab.worker(ready=False)
    check_failed(lab, result, why)
    assert starts(lab, member) == 0


def test_rabbitmq_does_not_drop_an_expired_member_without_a_word(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    header = [task(lab, "flow.value", 0), task(lab, "flow.value", 1, expires=0.3)]
    result = chord(header, body(lab)).apply_async()
    errbacks = task(lab, "flow.value", 2, expires=0.3).on_error(lab.app.tasks["flow.errback"].s()).apply_async()
    time.sleep(1.0)
    lab.worker(ready=False)
    check_failed(lab, result, "expired")
    wait(lambda: lab.journal.ids("errback") == [errbacks.id], 10, "the errback")


def test_a_revoked_member_never_runs_even_when_its_worker_was_killed(flow_lab: Lab) -> None:
    lab = flow_lab
    member = new_id()
    header = [task(lab, "flow.value", 0), task(lab, "flow.value", 1, task_id=member, countdown=3)]
    result = chord(header, body(lab)).apply_async()
    worker = lab.worker()
    wait(lambda: lab.journal.count("start") == 1, 10, "the first member")
    lab.app.control.revoke(member)
    worker.kill()
    lab.worker(ready=False)
    check_failed(lab, result, "revoked")
    assert starts(lab, member) == 0


def test_a_broker_that_is_away_when_the_body_is_to_be_sent_only_delays_it(
    own_redis: RedisServer, own_redis_lab: Lab
) -> None:
    lab = own_redis_lab
    result = chord([task(lab, "flow.value", n, 1.0) for n in range(2)], body(lab)).apply_async()
    lab.worker()
    wait(lambda: lab.journal.count("start") == 2, 10, "the members to run")
    own_redis.kill()
    time.sleep(1.5)
    own_redis.start()
    check_chord(lab, result, 2)


# --- one continuation, whichever step a worker dies at ----------------------------------------------------

STEPS = {
    "the executor has run it": ("executor", "run.after"),
    "the executor has told nobody": ("executor", "report.before"),
    "the executor has told": ("executor", "report.after"),
    "it is not settled": ("consumer", "settle.before"),
    "it is settled": ("consumer", "settle.after"),
}


def follow_chain(lab: Lab) -> tuple[str, list[str]]:
    result = chain(task(lab, "flow.value", 0), task(lab, "flow.value", 1), task(lab, "flow.value", 2)).apply_async()
    return result.id, [result.id, result.parent.id]


def follow_retry(lab: Lab) -> tuple[str, list[str]]:
    result = chain(task(lab, "flow.retry"), task(lab, "flow.value", 1)).apply_async()
    return result.id, [result.id]


def follow_chord(lab: Lab) -> tuple[str, list[str]]:
    opened = chord([task(lab, "flow.value", n) for n in range(3)], body(lab))
    result = chain(task(lab, "flow.value", 0), opened).apply_async()
    return result.id, [result.id]


def follow_replacement(how: str) -> Callable[[Lab], tuple[str, list[str]]]:
    def follow(lab: Lab) -> tuple[str, list[str]]:
        result = chain(task(lab, "flow.replace", how), task(lab, "flow.value", "last")).apply_async()
        return result.id, [result.id]

    return follow


WORKFLOWS = {
    "chain": follow_chain,
    "retry": follow_retry,
    "chord": follow_chord,
    "replaced by a task": follow_replacement("task"),
    "replaced by a chain": follow_replacement("chain"),
    "replaced by a chord": follow_replacement("chord"),
}


def start_faulty(lab: Lab, process: str, point: str, nth: int) -> None:
    """Start a worker one process of which is killed at the n-th pass of a point, once."""
    fired = lab.faulty_worker(f"{point}=kill@{nth}", process)
    wait(fired.exists, 25, f"{point} to be passed")


#: Every kind at each step of its first task; on Redis at the settlements that consumers make, where executors go on by
#: themselves with the steps of a chain (`test_chain_steps` walks those).
WALKS = [("sqlite", kind, step, 1) for kind in WORKFLOWS for step in STEPS] + [
    ("redis", kind, step, nth)
    for kind, nth in (("chain", 1), ("chord", 1), ("chord", 2), ("replaced by a chain", 1))
    for step in ("it is not settled", "it is settled")
]


@pytest.mark.parametrize(("flow_lab", "kind", "step", "nth"), WALKS, indirect=["flow_lab"])
def test_what_follows_runs_once(flow_lab: Lab, kind: str, step: str, nth: int) -> None:
    lab = flow_lab
    last, followers = WORKFLOWS[kind](lab)
    start_faulty(lab, *STEPS[step], nth)
    final = lab.wait_states([last], 30)[last]
    assert final.state == "SUCCESS", final
    lab.drain()
    runs = {follower: starts(lab, follower) for follower in followers}
    # What runs at the moment of the kill runs again; nothing else does.
    assert all(count >= 1 for count in runs.values())
    assert sum(runs.values()) - len(runs) <= 1


@pytest.mark.parametrize("step", STEPS)
def test_an_errback_hears_once(flow_lab: Lab, step: str) -> None:
    lab = flow_lab
    failing = task(lab, "flow.fail").on_error(lab.app.tasks["flow.errback"].s())
    result = chain(failing, task(lab, "flow.value", 1)).apply_async()
    start_faulty(lab, *STEPS[step], 1)
    assert lab.wait_states([result.id], 30)[result.id].state == "FAILURE"
    lab.drain()
    assert lab.journal.ids("errback") == [result.parent.id]
    assert starts(lab, result.id) == 0


@pytest.mark.parametrize(
    "point", [f"{call}.{when}" for call in ("expect", "take", "forget", "put") for when in ("before", "after")]
)
def test_what_drives_workflows_tries_again(flow_lab: Lab, point: str) -> None:
    lab = flow_lab
    lab.settings = {**lab.settings, "workflow_inline_limit": 0}
    lab.app.conf.update(lab.settings)
    fired = lab.folder / "fired"
    values = [task(lab, "flow.value", n) for n in range(4)]
    good = chain(task(lab, "flow.value", "first"), chord(values, body(lab)), *[body(lab)] * 4).apply_async()
    bad = chain(task(lab, "flow.fail"), chord(values, body(lab)), *[body(lab)] * 4).apply_async()
    lab.worker(
        ready=False,
        UMBEL_FAILPOINTS=f"{point}=raise@1",
        UMBEL_FAILPOINTS_IN="executor",
        UMBEL_FAILPOINTS_ONCE=str(fired),
    )
    ended = lab.wait_states([good.id, bad.id], 30)
    assert fired.exists()
    assert [place for place, _ in ended[good.id].value] == [0, 1, 2, 3]
    assert ended[bad.id].error == "ValueError"
    lab.drain()
    assert starts(lab, good.id) == 1
    result = bad.parent
    while result is not None and result.parent is not None:
        if not hasattr(result, "results"):
            assert lab.finals([result.id])[result.id].error == "ValueError"
        result = result.parent


def test_a_group_is_a_group_whoever_dies(flow_lab: Lab) -> None:
    lab = flow_lab
    result = group([task(lab, "flow.value", n, 0.02) for n in range(50)]).apply_async()
    lab.worker(ready=False)
    lab.random_kills(2, lambda: KILLS["worker"](lab))
    ids = [member.id for member in result.results]
    ended = lab.wait_states(ids, 45)
    assert [ended[id].value[0] for id in ids] == list(range(50))
