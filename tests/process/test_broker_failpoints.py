"""Failpoints on Redis and RabbitMQ, and every step of the safe order where broker and store are two."""

from __future__ import annotations

import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, wait
from tests.process.walk import APART, FAULTS, LEASE, POINTS, kind_of, note_fault, walk
from umbel.app.ids import new_id
from umbel.engine import failpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

#: Delays beyond the lease are walked where they matter most; SQLite's walk has everything.
SLOW = {"lease.before", "start.before", "settle.before"}


def cases() -> list[tuple[str, str]]:
    names = [name for name in failpoints.NAMES if kind_of(name) not in APART]
    return [(name, fault) for name in names for fault in FAULTS if is_walked(name, fault)]


def is_walked(name: str, fault: str) -> bool:
    # A call that failed before it did anything is no more than one that was not made.
    if fault == "raise":
        return name.endswith("after")
    return fault == "kill" or name in SLOW


@pytest.mark.parametrize(("name", "fault"), cases(), ids=lambda value: value)
def test_no_failpoint_breaks_a_promise_on_redis(redis_lab: Lab, name: str, fault: str) -> None:
    walk(redis_lab, name, fault)


#: What RabbitMQ does otherwise than the engines that are broker and store in one.
OTHERWISE = ("lease", "start", "extend", "recover", "settle")


@pytest.mark.parametrize(
    ("name", "fault"), [case for case in cases() if kind_of(case[0]) in OTHERWISE], ids=lambda value: value
)
def test_no_failpoint_breaks_a_promise_on_rabbitmq(rabbit_lab: Lab, name: str, fault: str) -> None:
    walk(rabbit_lab, name, fault)


#: The steps of a settlement where broker and store are two, in their order.
STEPS = ("put.before", "put.after", "publish.before", "publish.after", "settle.before", "settle.after")


@pytest.fixture(params=["redis", "sqlite"])
def apart(request: pytest.FixtureRequest) -> Lab:
    """Give a lab on RabbitMQ with results in Redis or in a SQLite file."""
    lab: Lab = request.getfixturevalue("rabbit_lab" if request.param == "redis" else "rabbit_file_lab")
    return lab


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in STEPS for fault in ("kill", "raise") if is_walked(name, fault)]
)
def test_a_crash_at_any_step_of_a_settlement_loses_neither_a_retry_nor_a_follow_up(
    apart: Lab, name: str, fault: str
) -> None:
    lab = apart
    # Results are stored by executors that have nothing else to do.
    point = POINTS["put" if name.startswith("put") else "settle"]
    fired = lab.faulty_worker(f"{name}={fault}@2", point.process, {**LEASE, "task_track_started": False})
    children = [new_id() for _ in range(3)]
    for child in children:
        follow_up = lab.app.tasks["lab.work_late"].si(0.0).set(task_id=child)
        lab.send("lab.again", link=follow_up)
        lab.journal.write("intended", child)
        lab.journal.write("returned", child)
    wait(fired.exists, 15, f"{name} to be passed")
    note_fault(lab, fired, point, fault)
    lab.worker("-c", "1", settings=LEASE)
    lab.wait_states(lab.journal.ids("returned"), 25)
    parents = set(lab.journal.ids("returned")) - set(children)
    verdict = lab.prove(Rules(late=True, unsettled=3.0, may_repeat=frozenset(parents | set(children))))
    # The crash may have doubled a retry, and each of them its follow-up; that is all.
    starts = lab.journal.ids("start")
    assert {id: starts.count(id) for id in parents if not 2 <= starts.count(id) <= 6} == {}, verdict
    assert {id: starts.count(id) for id in children if not 1 <= starts.count(id) <= 4} == {}, verdict


@pytest.mark.parametrize("fault", ["kill", "raise"])
@pytest.mark.parametrize("name", ["adopt.before", "adopt.after"])
def test_a_crash_while_a_start_is_remembered_elsewhere_loses_nothing(apart: Lab, name: str, fault: str) -> None:
    lab = apart
    fired = lab.faulty_worker(f"{name}={fault}@2", "consumer", LEASE)
    lab.send_many("lab.work", 10, 0.01)
    wait(fired.exists, 15, f"{name} to be passed")
    note_fault(lab, fired, POINTS["start"], fault)
    lab.worker("-c", "1", settings=LEASE)
    lab.wait_states(lab.journal.ids("returned"), 25)
    started = frozenset(lab.journal.ids("returned")) - frozenset(lab.journal.ids("start"))
    # What was marked as started and never was has failed, visibly.
    verdict = lab.prove(Rules(late=False, unsettled=3.0, may_fail=started))
    assert fault == "kill" or verdict.duplicated == 0
