"""Workflows end beside Celery as they do with Celery alone, whoever sends them and whoever runs their steps."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.interop.kit import Fleet, wait_for
from tests.interop.workflows import FAILURES, WORKFLOWS, described, words
from umbel import chain, chord, group
from umbel.celery.result import GroupResult, result_from_tuple

#: How long a workflow may take (seconds).
PATIENCE = 12.0
Told = dict[str, dict[str, Any]]
#: States of what has not ended, or never will with Celery.
OPEN = ("PENDING", "STARTED", "RETRY")


class Way(NamedTuple):
    """One way of running a workflow: who sends it, and which sides its steps go to in turn."""

    producer: str
    sides: tuple[str, ...]
    limit: int | None = 4096

    def __str__(self) -> str:
        return f"{self.producer}({self.limit}) to {' and '.join(self.sides)}"


ORACLE = Way("celery", ("celery",))
WAYS = (
    Way("celery", ("umbel",)),
    Way("celery", ("celery", "umbel")),
    Way("celery", ("umbel", "celery")),
    Way("umbel", ("celery",), None),
    Way("umbel", ("celery",)),
    Way("umbel", ("celery", "umbel")),
    Way("umbel", ("umbel", "celery"), 0),
    Way("umbel", ("celery", "umbel"), 0),
    Way("umbel", ("umbel",), 0),
)
#: Those that are taken where the broker is another one than the store: what it has to do with workflows is less.
SOME_WAYS = (WAYS[0], WAYS[2], WAYS[3], WAYS[5], WAYS[6])

#: Celery gives the members of an inner group, and those that were added, places of their own.
UNORDERED = {"chord with a group", "member of an inner group", "member added"}
#: Celery fails the members of a group that is a body with the error itself, umbel as it does any body.
OTHER_ERROR = {"member with a group as body"}


class Sent:
    """A workflow that was sent one way."""

    def __init__(self, fleet: Fleet, text: str, way: Way) -> None:
        self.fleet, self.text, self.way, self.tag = fleet, text, way, uuid.uuid4().hex
        if way.producer == "celery":
            self.results = fleet.celery.ask(f"send_workflow({text!r}, {way.sides!r}, {self.tag!r})")
        else:
            fleet.umbel.conf.workflow_inline_limit = way.limit
            sig = eval(text, words(fleet.umbel, (chain, group, chord), way.sides, self.tag))
            self.results = json.loads(json.dumps(sig.apply_async().as_tuple()))

    def runs(self) -> dict[str, int]:
        """How often each task ran."""
        return dict(Counter(run.word.partition(":")[2] for run in self.fleet.runs(self.tag)))

    def sides(self) -> set[str]:
        """Where tasks ran, but for errbacks, which run where their task ends."""
        return {run.side for run in self.fleet.runs(self.tag) if ":errback" not in run.word}

    def told(self, by: str) -> Told:
        """How it stands, as the client of one side tells it; `runs` is how often each task ran."""
        if by == "celery":
            told: Told = self.fleet.celery.ask(f"tell_workflow({self.results!r})")
        else:
            told = json.loads(json.dumps(described(result_from_tuple(self.results, self.fleet.umbel))))
        return {**told, "runs": self.runs()}

    def settled(self) -> Told:
        """How it stands with Celery once all has run, or nothing changes any more."""
        deadline, before, same = time.monotonic() + PATIENCE, None, 0
        while not self._is_complete(told := self.told("celery")) and same < 3:
            same = same + 1 if told == before and _has_ended(told) else 0
            assert time.monotonic() < deadline, f"with Celery alone it does not end: {told}"
            before = told
            time.sleep(0.2)
        return told

    def _is_complete(self, told: Told) -> bool:
        ended = all(one.get("state", "SUCCESS") not in OPEN for one in told.values())
        # Callbacks begin when the result that they belong to has its end already.
        ran = all(told["runs"].get(name, 0) == self.text.count(f"{name}(") for name in ("put", "broken"))
        return ended and ran and "put(" in self.text

    def differences(self, expected: Told, by: str, read: Callable[[Any], Any]) -> list[str]:
        """Wait until it stands as expected; give what differs at last."""
        deadline = time.monotonic() + PATIENCE
        while (found := _differences(expected, self.told(by), read)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"{self.way}, told by {by}: {each}" for each in found]


def _has_ended(told: Told) -> bool:
    """Tell whether anything that Celery lets end has ended."""
    return any(one.get("state") in ("SUCCESS", "FAILURE") for one in told.values())


def _differences(expected: Told, told: Told, read: Callable[[Any], Any]) -> list[str]:
    """Say what differs from what Celery did, but for what Celery leaves without an end.

    On the way up from a result Celery leaves out steps, so there all has to be found that it has.
    """
    kept = {place: one for place, one in expected.items() if one.get("state") not in OPEN}
    open_ended = len(kept) < len(expected)
    ends = [place for place in kept if "^" not in place and (place != "runs" or not open_ended)]
    here, there = (read([(place, _ending(one.get(place))) for place in ends]) for one in (told, kept))
    missing = Counter(_text(read(_ending(one))) for place, one in kept.items() if "^" in place)
    missing -= Counter(_text(read(_ending(one))) for place, one in told.items() if "^" in place)
    found = [f"{here} and not {there}"] if here != there else []
    return found + [f"nothing before it is {one}" for one in missing]


def _ending(one: Any) -> Any:
    """Leave out whether a task that failed sent more: where errbacks run differs."""
    failed = one is not None and one.get("state") == "FAILURE"
    return {**one, "sent": None} if failed else one


def _exact(value: Any) -> Any:
    return value


def _flat(value: Any) -> list[str]:
    """Return everything in it without its lists."""
    return re.findall(r"[\w^:]+", str(value))


def _unordered(value: Any) -> list[str]:
    return sorted(_flat(value))


def _without_errors(value: Any) -> list[str]:
    return re.findall(r"'result[^']*'|'state': '\w+'", str(value))


def _reading(name: str) -> Callable[[Any], Any]:
    return _unordered if name in UNORDERED else _without_errors if name in OTHER_ERROR else _exact


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.fixture(autouse=True)
def limit(fleet: Fleet) -> Iterator[None]:
    before = fleet.umbel.conf.workflow_inline_limit
    yield
    fleet.umbel.conf.workflow_inline_limit = before


@pytest.mark.parametrize("name", [*WORKFLOWS, *FAILURES])
def test_a_workflow_ends_as_with_celery_alone(fleet: Fleet, name: str) -> None:
    text = WORKFLOWS.get(name) or FAILURES[name]
    oracle = Sent(fleet, text, ORACLE)
    sent = [Sent(fleet, text, way) for way in (WAYS if fleet.kind == "redis" else SOME_WAYS)]
    expected = oracle.settled()
    for one in sent:
        for by in ("celery", "umbel"):
            found = one.differences(expected, by, _reading(name))
            assert not found, "\n".join(found)
        if len(one.way.sides) == 1:
            assert one.sides() <= set(one.way.sides), one.way


# --- reading what the other side sent ---------------------------------------------------------------------

READ = {
    "chain": "put(1) | put(2) | put(3)",
    "group": "group(put(1), put(2) | put(3))",
    "chord": "put(1) | chord([put(2), put(3)], put(4)) | put(5)",
    "group at the end": "put(1) | group(put(2), put(3))",
}
ALTERNATING = ("umbel", "celery")


def _read(fleet: Fleet, results: Any) -> dict[str, Any]:
    """Read a workflow as programs beside umbel do (see `read` of celery_workflows)."""
    result = result_from_tuple(results, fleet.umbel)
    value, before, above = result.get(timeout=20), [], result.parent
    while above is not None:
        before.append(above.get(timeout=20))
        above = above.parent
    top = result
    while top.parent is not None:
        top = top.parent
    if hasattr(top, "results"):
        return {"value": value, "before": before, "collected": []}
    return {"value": value, "before": before, "collected": [one for _, one in top.collect(timeout=20)]}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_each_client_reads_the_results_that_the_other_one_sent(fleet: Fleet, text: str) -> None:
    both = [Sent(fleet, text, Way(producer, ALTERNATING)) for producer in ("celery", "umbel")]
    theirs = [fleet.celery.ask(f"read_workflow({one.results!r})") for one in both]
    ours = [_read(fleet, one.results) for one in both]
    assert len({_text([one["value"], one["before"]]) for one in (*theirs, *ours)}) == 1
    for sent, celery, umbel in zip(both, theirs, ours, strict=True):
        assert _unordered(celery["collected"]) == _unordered(umbel["collected"]), sent.way
        # umbel's graph has what came before a result as well.
        assert len(result_from_tuple(sent.results, fleet.umbel).graph) >= celery["graph"], sent.way


def test_groups_that_one_side_keeps_are_found_by_the_other(fleet: Fleet) -> None:
    for producer in ("celery", "umbel"):
        sent = Sent(fleet, "group(put(1), put(2) | put(3))", Way(producer, ALTERNATING))
        assert fleet.celery.ask(f"restore_group({sent.results[0][0]!r})") is None
        if producer == "celery":
            assert fleet.celery.ask(f"save_group({sent.results!r})")
        else:
            result_from_tuple(sent.results, fleet.umbel).save()
        found = GroupResult.restore(sent.results[0][0], app=fleet.umbel)
        assert found is not None
        assert found.get(timeout=20) == [[1], [[2], 3]]
        assert fleet.celery.ask(f"restore_group({sent.results[0][0]!r})") == [[1], [[2], 3]]


# --- chains that are larger than what messages repeat -----------------------------------------------------


@pytest.mark.parametrize("sides", [("umbel", "celery"), ("celery", "umbel"), ("celery",)], ids="-".join)
def test_a_long_chain_goes_through_both_kinds_of_workers(fleet: Fleet, sides: tuple[str, ...]) -> None:
    sent = Sent(fleet, " | ".join(f"put({number})" for number in range(30)), Way("umbel", sides))
    value = result_from_tuple(sent.results, fleet.umbel).get(timeout=30)
    for number in reversed(range(1, 30)):
        value, last = value
        assert last == number
    assert value == [0]
    assert sent.runs() == {"put": 30}
    assert sent.sides() == set(sides)
    assert fleet.celery.ask(f"read_workflow({sent.results!r})")["before"][-1] == [0]


@pytest.mark.parametrize("place", [1, 14, 28])
@pytest.mark.parametrize("side", ["celery", "umbel"])
def test_a_step_of_a_long_chain_that_fails_on_either_side_fails_the_chain(fleet: Fleet, side: str, place: int) -> None:
    steps = ["put(0)"] * 30
    steps[place] = f"failed(broken(1, queue='to_{side}'))"
    sent = Sent(fleet, " | ".join(steps), Way("umbel", ALTERNATING))
    result = result_from_tuple(sent.results, fleet.umbel)
    with pytest.raises(KeyError, match="broken"):
        result.get(timeout=20)
    failure = {"error": "KeyError", "args": ["broken"]}
    wait_for(lambda: sent.told("celery")["result"]["value"] == failure, "the end of the last step")
    wait_for(lambda: sent.runs() == {"put": place, "broken": 1, "errback:KeyError": 1}, lambda: str(sent.runs()))
    # A Celery worker knows the last step by a stub: those between have no end there.
    told = sent.told("umbel")
    states = {one["state"] for each, one in told.items() if each != "runs" and each.count("^") < 29 - place}
    assert states <= ({"FAILURE", "PENDING"} if side == "celery" else {"FAILURE"})


def test_the_header_of_a_stored_body_is_opened_by_umbel_alone(fleet: Fleet) -> None:
    """A Celery worker that comes to a chord with stored members in it would give its header a new id."""
    member = " | ".join(f"put({number})" for number in range(8))
    sent = Sent(fleet, f"put(0) | chord([{member}, {member}], put(8)) | put(9)", Way("umbel", ("celery",), 0))
    assert result_from_tuple(sent.results, fleet.umbel).get(timeout=30)[1] == 9
    assert sent.runs() == {"put": 19}
