"""Chords whose worker dies at any step of the end of a member, and clients that die while they send one."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.process.lab import Lab, wait
from tests.process.walk import APART_POINTS, LEASE, kind_of
from umbel import chord
from umbel.app.ids import new_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

#: Where broker and store are two: the steps that end the last of three members, and the join that they lead to.
APART = [("put", 3), ("join", 3), ("publish", 1), ("confirm", 1), ("settle", 3), ("publish", 2), ("settle", 4)]
#: Where both are one database.
TOGETHER = [("settle", 3), ("settle", 4)]


def cases(steps: list[tuple[str, int]]) -> list[Any]:
    points = [(f"{step}.{when}", nth) for step, nth in steps for when in ("before", "after")]
    return [pytest.param(point, nth, id=f"{point}@{nth}") for point, nth in points]


def walk(lab: Lab, point: str, nth: int, task: str = "lab.work_late") -> int:
    """Kill a process at this point of a chord and let its heir go on; return how often the body ran."""
    members = [new_id() for _ in range(3)]
    body = new_id()
    header = [lab.app.tasks[task].s(0.05).set(task_id=member) for member in members]
    chord(header, app=lab.app)(lab.app.tasks["lab.collect"].s().set(task_id=body))
    process = APART_POINTS.get(kind_of(point), "consumer")
    fired = lab.faulty_worker(f"{point}=kill@{nth}", process, {**LEASE, "task_track_started": False})
    wait(fired.exists, 20, f"{point} to be passed")
    final = lab.wait_states([body], 40)[body]
    assert final.state == "SUCCESS", final
    ended = lab.finals(members)
    assert [ended[member].state for member in members] == ["SUCCESS"] * 3
    assert final.value == [ended[member].value for member in members]
    lab.drain(30)
    if point == "put.after":
        assert lab.workers[-1].said("had ended (success) and came again")
    return lab.journal.ids("start").count(body)


@pytest.mark.parametrize(("point", "nth"), cases(APART))
def test_a_chord_is_gone_on_with_whichever_step_its_worker_died_at(rabbit_lab: Lab, point: str, nth: int) -> None:
    assert 1 <= walk(rabbit_lab, point, nth) <= 2


@pytest.mark.parametrize(("point", "nth"), [("put.after", 3), ("join.after", 3)])
def test_results_in_a_file_are_as_good(rabbit_file_lab: Lab, point: str, nth: int) -> None:
    assert 1 <= walk(rabbit_file_lab, point, nth) <= 2


@pytest.mark.parametrize(("point", "nth"), [("put.after", 3), ("join.after", 3), ("publish.after", 1)])
def test_members_that_are_acknowledged_early_complete_their_chord(rabbit_lab: Lab, point: str, nth: int) -> None:
    assert 1 <= walk(rabbit_lab, point, nth, "lab.work") <= 2


@pytest.mark.parametrize(("point", "nth"), cases(TOGETHER))
def test_in_one_database_the_body_runs_once(lab: Lab, point: str, nth: int) -> None:
    assert walk(lab, point, nth) == 1


@pytest.mark.parametrize(("point", "nth"), cases(TOGETHER))
def test_on_redis_the_body_runs_once(redis_lab: Lab, point: str, nth: int) -> None:
    assert walk(redis_lab, point, nth) == 1


STREAMED = """
from umbel import chord
late, body = app.tasks["lab.work_late"], sys.argv[1]
header = (late.s(0.0) for _ in range(1001))
chord(header, app=app)(app.tasks["lab.collect"].s().set(task_id=body))
"""


@pytest.mark.parametrize("point", ["expect.after", "confirm.before"])
def test_a_client_that_dies_after_it_told_the_size_leaves_a_chord_that_ends(redis_lab: Lab, point: str) -> None:
    lab = redis_lab
    lab.worker("-c", "1", settings=LEASE)
    body = new_id()
    # The members have ended before the size is known, so that telling it completes the chord.
    client = lab.python(STREAMED, body, UMBEL_FAILPOINTS=f"expect.before=sleep(12);{point}=kill")
    out, _ = client.communicate(timeout=60)
    assert client.returncode == -signal.SIGKILL, out
    final = lab.wait_states([body], 60)[body]
    assert (final.state, len(final.value)) == ("SUCCESS", 1001)
    assert lab.journal.ids("start").count(body) == 1


def test_the_groups_are_gone_when_the_chord_has_ended(redis_lab: Lab) -> None:
    lab = redis_lab
    lab.worker("-c", "1", settings=LEASE)
    store = lab.app.store
    assert store is not None
    sent = chord([lab.app.tasks["lab.work"].s(0.0)] * 3, app=lab.app)(lab.app.tasks["lab.collect"].s())
    assert len(sent.get(timeout=20)) == 3
    lab.drain(20)
    assert sent.parent is not None
    assert store.joined([sent.parent.id]) == {}
    assert store.unconfirmed(time.time() + 60) == []


@pytest.mark.parametrize("engine", ["lab", "redis_lab", "rabbit_file_lab"])
def test_a_header_may_take_longer_than_results_are_kept(request: pytest.FixtureRequest, engine: str) -> None:
    lab: Lab = request.getfixturevalue(engine)
    lab.app.conf.result_expires = 1
    # The body is kept apart from the messages, and so has to outlast the header as well.
    lab.app.conf.workflow_inline_limit = 0
    lab.worker("-c", "2", settings={**LEASE, "result_expires": 1})
    work, body = lab.app.tasks["lab.work_late"], lab.app.tasks["lab.collect"].s()
    values = chord([work.s(0.0), work.s(0.0), work.s(3.5)], app=lab.app)(body).get(timeout=30)
    ended = [event.more["value"] for event in lab.journal.events() if event.what == "end"]
    assert len(set(values) & set(ended)) == 3
    lab.drain(30)
