"""Workflows of either side's producer on workers of both sides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.kit import Fleet, wait_for
from umbel import chain, chord, group

SIDES = ["umbel", "celery"]


def value_of(fleet: Fleet, task_id: str) -> Any:
    """The value of a task that Celery's client waits for."""
    outcome = fleet.outcome(task_id)
    assert outcome["state"] == "SUCCESS", f"{outcome}\n{fleet.explain()}"
    return outcome["value"]


def ask(fleet: Fleet, expression: str) -> str:
    """Send a workflow from Celery; give the id of its result."""
    task_id: str = fleet.celery.ask(f"({expression}).apply_async().id")
    return task_id


class Ours:
    """Signatures of umbel's producer, each for a worker of a given side."""

    def __init__(self, fleet: Fleet) -> None:
        self.tasks = fleet.umbel.tasks

    def __call__(self, name: str, side: str, *args: Any) -> Any:
        return self.tasks[f"fleet.{name}"].s(*args).set(queue=f"to_{side}")


# --- chains -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", SIDES)
def test_a_chain_of_celery_goes_from_side_to_side(fleet: Fleet, first: str) -> None:
    second = SIDES[1 - SIDES.index(first)]
    steps = [f"add.s(1, 1).set(queue='to_{first}')"]
    steps += [f"add.s(1).set(queue='to_{side}')" for side in (second, first, second, first)]
    assert value_of(fleet, ask(fleet, f"chain({', '.join(steps)})")) == 6


@pytest.mark.parametrize("limit", [None, 0], ids=["embedded", "stored"])
@pytest.mark.parametrize("first", SIDES)
def test_a_chain_of_umbel_goes_from_side_to_side(fleet: Fleet, first: str, limit: int | None) -> None:
    ours, second = Ours(fleet), SIDES[1 - SIDES.index(first)]
    fleet.umbel.conf.workflow_inline_limit = limit
    steps = [ours("add", first, 1, 1), *(ours("add", side, 1) for side in (second, first, second, first))]
    result = chain(*steps).apply_async()
    assert result.get(timeout=20) == 6
    assert value_of(fleet, result.id) == 6


def test_a_chain_that_fails_on_either_side_fails_whole(fleet: Fleet) -> None:
    ours = Ours(fleet)
    for side in SIDES:
        steps = f"add.s(1, 1), fail.si('KeyError').set(queue='to_{side}'), add.s(1), add.s(2)"
        theirs = ask(fleet, f"chain({steps})")
        assert fleet.outcome(theirs)["value"]["error"] == "KeyError"
        fleet.umbel.conf.workflow_inline_limit = 0
        result = chain(ours("fail", side, "KeyError"), *(ours("add", "umbel", 1) for _ in range(4))).apply_async()
        if side == "celery":
            # It knows the last step by its stub; those before it are in the store.
            assert fleet.outcome(result.id)["state"] == "FAILURE"
            continue
        for step in (result, result.parent):
            assert fleet.outcome(step.id)["value"]["error"] == "KeyError"


# --- chords -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", SIDES)
@pytest.mark.parametrize("count", [2, 12])
def test_a_chord_of_celery_is_completed_by_both_sides_together(fleet: Fleet, body: str, count: int) -> None:
    members = ", ".join(f"add.s({n}, 1).set(queue='to_{SIDES[n % 2]}')" for n in range(count))
    found = value_of(fleet, ask(fleet, f"chord([{members}], total.s().set(queue='to_{body}'))"))
    assert found == {"side": body, "values": list(range(1, count + 1)), "more": []}


@pytest.mark.parametrize("limit", [None, 0], ids=["embedded", "stored"])
@pytest.mark.parametrize("body", SIDES)
@pytest.mark.parametrize("count", [2, 12])
def test_a_chord_of_umbel_is_completed_by_both_sides_together(
    fleet: Fleet, body: str, count: int, limit: int | None
) -> None:
    ours = Ours(fleet)
    fleet.umbel.conf.workflow_inline_limit = limit
    members = [ours("add", SIDES[n % 2], n, 1) for n in range(count)]
    result = chord(members, ours("total", body)).apply_async()
    assert result.get(timeout=20) == {"side": body, "values": list(range(1, count + 1)), "more": []}
    wait_for(lambda: fleet.runs("total", result.id), "the body")
    assert len(fleet.runs("total", result.id)) == 1


@pytest.mark.parametrize("side", SIDES)
def test_a_chord_whose_member_fails_on_one_side_fails(fleet: Fleet, side: str) -> None:
    other = SIDES[1 - SIDES.index(side)]
    members = f"add.s(1, 1).set(queue='to_{other}'), fail.s('KeyError').set(queue='to_{side}')"
    theirs = ask(fleet, f"chord([{members}], total.s().set(queue='to_{other}'))")
    assert fleet.outcome(theirs)["value"]["error"] == "ChordError"
    ours = Ours(fleet)
    for limit in (None, 0):
        fleet.umbel.conf.workflow_inline_limit = limit
        header = [ours("add", other, 1, 1), ours("fail", side, "KeyError")]
        result = chord(header, ours("total", other)).apply_async()
        outcome = fleet.outcome(result.id)["value"]
        assert outcome["error"] == "ChordError"
        assert "KeyError" in outcome["args"][0]


@pytest.mark.parametrize("side", SIDES)
def test_nested_workflows_of_celery(fleet: Fleet, side: str) -> None:
    other = SIDES[1 - SIDES.index(side)]
    mine, theirs = f".set(queue='to_{side}')", f".set(queue='to_{other}')"
    inner = f"chord([add.s(1, 1){mine}, add.s(2, 2){theirs}], total.s(){mine})"
    header = f"[{inner}, chain(add.s(3, 3){theirs}, add.s(1){mine}), add.s(0, 0){mine}]"
    found = value_of(fleet, ask(fleet, f"chord({header}, total.s(){theirs}) | total.s(){mine}"))
    values = found["values"]["values"]
    assert values[0] == {"side": side, "values": [2, 4], "more": []}
    assert values[1:] == [7, 0]


@pytest.mark.parametrize("limit", [None, 0], ids=["embedded", "stored"])
@pytest.mark.parametrize("side", SIDES)
def test_nested_workflows_of_umbel(fleet: Fleet, side: str, limit: int | None) -> None:
    ours, other = Ours(fleet), SIDES[1 - SIDES.index(side)]
    fleet.umbel.conf.workflow_inline_limit = limit
    inner = chord([ours("add", side, 1, 1), ours("add", other, 2, 2)], ours("total", side))
    header = [inner, chain(ours("add", other, 3, 3), ours("add", side, 1)), ours("add", side, 0, 0)]
    result = (chord(header, ours("total", other)) | ours("total", side)).apply_async()
    values = result.get(timeout=30)["values"]["values"]
    assert values[0] == {"side": side, "values": [2, 4], "more": []}
    assert values[1:] == [7, 0]


# --- groups and callbacks ---------------------------------------------------------------------------------


def test_groups_run_on_both_sides(fleet: Fleet) -> None:
    members = ", ".join(f"add.s({n}, 1).set(queue='to_{SIDES[n % 2]}')" for n in range(6))
    assert fleet.celery.ask(f"group([{members}]).apply_async().get(timeout=15)") == list(range(1, 7))
    ours = Ours(fleet)
    found = group([ours("add", SIDES[n % 2], n, 1) for n in range(6)]).apply_async()
    assert found.get(timeout=15) == list(range(1, 7))


@pytest.mark.parametrize("side", SIDES)
def test_callbacks_may_be_workflows(fleet: Fleet, side: str) -> None:
    queue = f".set(queue='to_{side}')"
    link = f"chord([add.s(1){queue}, add.s(2)], total.s().set(task_id='{{}}'))"
    their_id = f"callback-of-celery-{side}-{fleet.kind}"
    ask(fleet, f"add.s(1, 1).set(queue='to_{side}', link={link.format(their_id)})")
    assert value_of(fleet, their_id)["values"] == [3, 4]
    ours, our_id = Ours(fleet), f"callback-of-umbel-{side}-{fleet.kind}"
    body = ours("total", side).set(task_id=our_id)
    ours("add", side, 1, 1).set(link=chord([ours("add", side, 1), ours("add", side, 2)], body)).apply_async()
    assert value_of(fleet, our_id)["values"] == [3, 4]


# --- tasks that hand over ---------------------------------------------------------------------------------

REPLACED = {"task": 11, "chain": 12, "group": [11, 11]}


@pytest.mark.parametrize("limit", [None, 0], ids=["embedded", "stored"])
@pytest.mark.parametrize(("how", "value"), REPLACED.items())
@pytest.mark.parametrize("side", SIDES)
def test_a_replaced_task_keeps_its_place_on_both_sides(
    fleet: Fleet, side: str, how: str, value: Any, limit: int | None
) -> None:
    ours, other = Ours(fleet), SIDES[1 - SIDES.index(side)]
    fleet.umbel.conf.workflow_inline_limit = limit
    queues = [f"to_{other}", f"to_{side}"]
    header = [ours("replaced", side, how, 10, queues), ours("add", other, 1, 1), ours("add", side, 1, 2)]
    result = (chord(header, ours("total", other)) | ours("total", side)).apply_async()
    assert result.get(timeout=20)["values"]["values"] == [value, 2, 3], fleet.explain()


@pytest.mark.parametrize("side", SIDES)
def test_a_chord_grows_on_either_side(fleet: Fleet, side: str) -> None:
    ours, other = Ours(fleet), SIDES[1 - SIDES.index(side)]
    header = [ours("grow", side, [f"to_{other}", f"to_{side}"]), ours("add", other, 1, 1)]
    result = chord(header, ours("total", other)).apply_async()
    values = result.get(timeout=20)["values"]
    assert sorted(map(str, values)) == ["100", "101", "2", "grown"], fleet.explain()
