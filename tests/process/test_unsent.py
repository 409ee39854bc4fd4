"""Producers that are killed while they send a workflow: what they had sent runs, and the chord ends."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pytest

from tests.process.lab import Lab, wait
from tests.process.walk import LEASE
from umbel import chord
from umbel.app.ids import new_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

#: A list, which is sent in parts on a broker without transactions; a generator; a header with a chord within.
SENDERS = {
    "list": "chord([late.s(0.0) for _ in range(2500)], app=app)(body)",
    "generator": "chord((late.s(0.0) for _ in range(2500)), app=app)(body)",
    "nested": "chord([*(late.s(0.0) for _ in range(2500)), chord([late.s(0.0)] * 2, collect.s())], app=app)(body)",
}
CLIENT = """
from umbel import chord
late, collect = app.tasks["lab.work_late"], app.tasks["lab.collect"]
body = collect.s().set(task_id=sys.argv[1], link_error=[collect.s().set(task_id=sys.argv[2])])
{sender}
"""


def kill_senders(lab: Lab, senders: Sequence[str]) -> None:
    """Kill a producer of each kind after the first thousand; wait until all has ended as it should."""
    bodies = {name: (new_id(), new_id()) for name in senders}
    for name, ids in bodies.items():
        client = lab.python(CLIENT.format(sender=SENDERS[name]), *ids, UMBEL_FAILPOINTS="publish.after=kill@1")
        out, _ = client.communicate(timeout=60)
        assert client.returncode == -signal.SIGKILL, out
    lab.worker("-c", "2", settings=LEASE)
    finals = lab.wait_states([body for body, _ in bodies.values()], 90)
    for name, (body, errback) in bodies.items():
        assert finals[body].state == "FAILURE", name
        assert "the producer stopped while it sent the workflow" in str(finals[body].value), name
        assert lab.wait_states([errback], 20)[errback].state == "SUCCESS"
    lab.drain(60)
    started = lab.journal.ids("start")
    assert not {body for body, _ in bodies.values()} & set(started)
    assert len(started) - len(bodies) >= 1000 * len(bodies)
    store: Any = lab.app.store
    wait(lambda: store.unconfirmed(2**40) == [], 20, "the marks to be gone")


def test_a_chord_that_was_sent_by_half_ends_on_redis(redis_lab: Lab) -> None:
    kill_senders(redis_lab, list(SENDERS))


def test_a_chord_that_was_sent_by_half_ends_on_rabbitmq(rabbit_lab: Lab) -> None:
    kill_senders(rabbit_lab, list(SENDERS))


def test_a_generator_that_was_read_by_half_ends_on_sqlite(lab: Lab) -> None:
    kill_senders(lab, ["generator"])


def test_where_a_step_is_a_transaction_all_of_a_list_is_sent_or_nothing(lab: Lab) -> None:
    body, errback = new_id(), new_id()
    client = lab.python(CLIENT.format(sender=SENDERS["list"]), body, errback, UMBEL_FAILPOINTS="publish.before=kill@1")
    client.communicate(timeout=60)
    assert lab.app.broker.depth([], 0.0).get("celery") is None


@pytest.mark.parametrize("point", ["grow.before", "grow.after"])
def test_a_task_that_is_killed_while_it_lets_another_into_its_chord(lab: Lab, point: str) -> None:
    lab.worker(
        *("-c", "1"),
        settings=LEASE,
        UMBEL_FAILPOINTS=f"{point}=kill@1",
        UMBEL_FAILPOINTS_IN="executor",
        UMBEL_FAILPOINTS_ONCE=str(lab.folder / "fired"),
    )
    tasks = lab.app.tasks
    result = chord([tasks["flow.adds"].si(), tasks["flow.value"].si(1)], app=lab.app)(tasks["flow.body"].s())
    final = lab.wait_states([result.id], 90)[result.id]
    assert final.state == "FAILURE"
    assert "WorkerLostError" in str(final.value)
