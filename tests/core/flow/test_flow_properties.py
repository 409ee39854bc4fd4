"""Whatever the tree: ids are unique, leaves are numbered without gaps, headers end, and stubs change nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.flow.flow_kit import Fleet, chain, chord, group, numbers, task
from umbel.core.flow.dooming import doomed
from umbel.core.flow.freezing import freeze
from umbel.core.flow.joining import Group
from umbel.core.flow.starting import Opened, start
from umbel.core.flow.storing import shrink

_tasks = st.builds(task, st.sampled_from(["a", "b", "c"]), st.integers(0, 9), immutable=st.booleans())


def _grow(inner: Any, least: int = 0) -> Any:
    some = st.lists(inner, min_size=least, max_size=4)
    return st.one_of(
        some.map(lambda tasks: chain(*tasks)),
        some.map(lambda tasks: group(*tasks)),
        st.builds(chord, some, inner),
        st.builds(lambda tasks, body: chord(group(*tasks), body), some, inner),
    )


trees = st.recursive(_tasks, _grow, max_leaves=24)
#: Without empty chains, groups and headers.
full_trees = st.recursive(_tasks, lambda inner: _grow(inner, 1), max_leaves=24)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_every_task_runs_once_under_an_id_of_its_own_and_every_header_completes(tree: Any) -> None:
    frozen = freeze(tree, numbers())
    fleet = Fleet().run(frozen)
    ids = [call.options["task_id"] for call in fleet.calls]
    assert len(set(ids)) == len(ids)
    assert all(known.complete for known in fleet.groups.values())


@settings(max_examples=150, deadline=None)
@given(trees)
def test_leaves_of_a_header_are_numbered_from_zero_without_gaps(tree: Any) -> None:
    fleet = Fleet().run(freeze(tree, numbers()))
    for known in fleet.groups.values():
        assert known.size == len(known.parts)
        assert set(known.parts) == set(range(len(known.parts)))


@settings(max_examples=150, deadline=None)
@given(trees)
def test_freezing_again_changes_nothing(tree: Any) -> None:
    once = freeze(tree, numbers())
    assert freeze(once, numbers("other")) == once


@settings(max_examples=150, deadline=None)
@given(trees, st.sampled_from([0, 100, 4096]))
def test_a_workflow_with_stubs_calls_what_the_embedded_one_calls(tree: Any, limit: int) -> None:
    frozen = freeze(tree, numbers())
    small, pieces = shrink(frozen, limit, numbers("flow:"), "celery.umbel")
    expected = Fleet().run(frozen).ran()
    assert Fleet(pieces).run(small).ran() == expected
    assert Fleet(pieces, foreign=True).run(small).ran() == expected


@settings(max_examples=100, deadline=None)
@given(trees)
def test_what_is_given_stays_as_it_is(tree: Any) -> None:
    before = json.dumps(tree)
    frozen = freeze(tree, numbers())
    shrink(frozen, 0, numbers("flow:"), "celery.umbel")
    held = json.dumps(frozen)
    list(start(frozen, (1,), {"x": 1}, {"queue": "q", "chain": [task("z", task_id="z")]}))
    assert json.dumps(tree) == before
    assert json.dumps(frozen) == held


@settings(max_examples=100, deadline=None)
@given(trees)
def test_everything_that_would_run_is_doomed_when_it_does_not(tree: Any) -> None:
    frozen = freeze(tree, numbers())
    found = doomed([frozen])
    assert set(found.ids) == set(Fleet().run(frozen).ran())
    assert found.memberships == ()


def _told(fleet: Fleet) -> dict[str, set[tuple[str, int | None]]]:
    """Return for each call the places that its failure has to be told to."""
    return {
        call.options["task_id"]: {
            (member.group, member.index) for member in doomed(reversed(call.options.get("chain") or [])).memberships
        }
        for call in fleet.calls
    }


@settings(max_examples=150, deadline=None)
@given(full_trees, st.sampled_from([0, 300]))
def test_a_failure_is_told_to_the_same_places_whether_what_follows_is_embedded_or_stored(tree: Any, limit: int) -> None:
    frozen = freeze(chord([tree, task("t")], task("b")), numbers())
    small, pieces = shrink(frozen, limit, numbers("flow:"), "celery.umbel")
    assert _told(Fleet(pieces).run(small)) == _told(Fleet().run(frozen))


@given(st.permutations(range(5)), st.integers(0, 5))
def test_a_group_completes_once_with_the_first_payload_of_each_index(order: list[int], told: int) -> None:
    known = Group()
    completed = 0
    for step, index in enumerate([*order, *order]):
        for change in ([lambda g: g.expect(5)] if step == told else []) + [
            lambda g, i=index, s=step: g.join(i, b"%d.%d" % (i, s))
        ]:
            after = change(known)
            completed += after.complete and not known.complete
            known = after
    assert completed == 1
    assert [payload.split(b".")[0] for payload in known.payloads] == [b"0", b"1", b"2", b"3", b"4"]
    assert all(int(payload.split(b".")[1]) < 5 for payload in known.payloads)


def test_an_opened_header_is_told_after_its_calls() -> None:
    frozen = freeze(chord([task("a"), task("b")], task("c")), numbers())
    found = list(start(frozen))
    assert isinstance(found[-1], Opened)
    assert found[-1].size == 2
