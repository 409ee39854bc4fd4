"""Chords in a mixed fleet on Redis, where either side may be the one that runs the last member."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import umbel
from tests.interop.kit import Fleet, wait_for

SIDES = ("celery", "umbel")
#: Written once for both: an expression with the names that each side gives to its canvas and tasks.
MEMBERS = (
    "value.s('a').set(queue='to_{first}'), value.s('b', 0.1).set(queue='to_{other}'), "
    "value.s('c', 0.6).set(queue='to_{last}')"
)


class Sender:
    """Evaluates the same expressions on either side; gives what `ids` and `outcome` tell of what was sent."""

    def __init__(self, fleet: Fleet, side: str) -> None:
        self.fleet, self.side = fleet, side

    def send(self, workflow: str) -> str:
        """Send a workflow; return the id of its last task."""
        if self.side == "celery":
            sent: str = self.fleet.celery.ask(f"({workflow}).apply_async().id")
            return sent
        tasks = {name.partition(".")[2]: task for name, task in self.fleet.umbel.tasks.items() if name[:6] == "fleet."}
        canvas = {"chain": umbel.chain, "chord": umbel.chord, "group": umbel.group}
        found: str = eval(workflow, {**tasks, **canvas}).apply_async().id
        return found

    def outcome(self, task_id: str) -> dict[str, Any]:
        """How it ended, as the other side sees it."""
        if self.side == "umbel":
            return self.fleet.outcome(task_id)
        result = self.fleet.umbel.AsyncResult(task_id)
        value = result.get(timeout=20, propagate=False)
        error = {"error": type(value).__name__, "args": list(value.args)} if isinstance(value, BaseException) else value
        return {"state": result.state, "value": error}


@pytest.fixture(params=SIDES)
def sender(request: pytest.FixtureRequest, redis_fleet: Fleet) -> Sender:
    """Either side, sending to a fleet on Redis."""
    redis_fleet.celery_worker.wait_ready()
    redis_fleet.umbel_worker.wait_ready()
    return Sender(redis_fleet, request.param)


@pytest.mark.parametrize(("last", "body"), list(itertools.product(SIDES, SIDES)))
def test_a_chord_over_both_kinds_of_workers_runs_its_body_once(sender: Sender, last: str, body: str) -> None:
    members = MEMBERS.format(first="umbel", other="celery", last=last)
    sent = sender.send(f"chord([{members}], total.s().set(queue='to_{body}'))")
    outcome = sender.outcome(sent)
    assert outcome["state"] == "SUCCESS", (outcome, sender.fleet.explain())
    assert outcome["value"] == {"side": body, "values": ["a", "b", "c"], "more": []}
    assert len(sender.fleet.runs("total", sent)) == 1


def test_a_group_within_a_header_gives_the_body_the_same_values_whoever_is_last(sender: Sender) -> None:
    found = []
    for last in SIDES:
        members = MEMBERS.format(first="umbel", other="celery", last=last)
        header = f"group([value.s(1).set(queue='to_celery'), group([{members}])])"
        outcome = sender.outcome(sender.send(f"chord({header}, total.s().set(queue='to_celery'))"))
        assert outcome["state"] == "SUCCESS", (outcome, sender.fleet.explain())
        found.append(outcome["value"]["values"])
    assert found[0] == found[1]
    # Celery turns the members of an inner group round.
    assert found[0] == ([1, "a", "b", "c"] if sender.side == "umbel" else [1, "c", "b", "a"])


def test_many_members_on_both_sides_at_once(sender: Sender) -> None:
    members = "[value.s(n).set(queue='to_umbel' if n % 2 else 'to_celery') for n in range(60)]"
    sent = [sender.send(f"chord({members}, total.s().set(queue='mixed'))") for _ in range(5)]
    for one in sent:
        assert sender.outcome(one)["value"]["values"] == list(range(60)), sender.fleet.explain()
    wait_for(lambda: all(len(sender.fleet.runs("total", one)) == 1 for one in sent), "each body to be told of")
