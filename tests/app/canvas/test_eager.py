"""Workflows in the caller: what fails, what stops, what is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.canvas.canvas_kit import Kit
from umbel import chain, chord, group
from umbel.core.errors import Ignore, NotRegistered, Reject


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path, task_always_eager=True)

    @made.app.task(name="kit.ignore")
    def ignore(*_: Any) -> None:
        raise Ignore

    @made.app.task(name="kit.reject")
    def reject(*_: Any) -> None:
        raise Reject

    made.names.update(ignore=ignore, reject=reject)
    yield made
    made.app.close()


@pytest.mark.parametrize(("name", "state"), [("fail", "FAILURE"), ("ignore", "IGNORED"), ("reject", "REJECTED")])
def test_a_chain_stops_where_a_step_does_not_succeed(kit: Kit, name: str, state: str) -> None:
    result = chain(kit.add.s(1), kit.names[name].s(), kit.note.s()).apply_async()
    assert result.state == state
    assert result.parent.get() == 1
    assert kit.ran == []


def test_a_group_goes_on_beside_a_member_that_fails(kit: Kit) -> None:
    result = group(kit.fail.s(), kit.add.s(1, 1)).apply()
    assert [one.state for one in result.results] == ["FAILURE", "SUCCESS"]
    with pytest.raises(ValueError, match="on purpose"):
        result.get()


def test_a_chord_raises_what_its_header_raised_or_hands_it_on(kit: Kit) -> None:
    made = chord([kit.fail.s(), kit.add.s(1, 1)], kit.note.s())
    with pytest.raises(ValueError, match="on purpose"):
        made.apply()
    assert kit.ran == []
    made.apply(propagate=False)
    assert kit.ran == ["([ValueError('on purpose'), 2],)"]


def test_errors_are_raised_at_once_where_that_is_asked(kit: Kit) -> None:
    made = kit.fail.s() | kit.add.s(1)
    assert made.apply().state == "FAILURE"
    with pytest.raises(ValueError, match="on purpose"):
        made.apply(throw=True)
    kit.app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="on purpose"):
        made.apply_async()


def test_links_and_errbacks_may_be_workflows(kit: Kit) -> None:
    kit.add.s(1, 1).set(link=[group(kit.note.s("a"), kit.add.s(1) | kit.note.s("b"))]).apply_async()
    kit.fail.s().set(link_error=[kit.note.si("c") | kit.note.si("d")]).apply_async()
    assert kit.ran == ["(2, 'a')", "(3, 'b')", "('c',)", "('d',)"]


def test_results_are_linked_to_what_ran_before(kit: Kit) -> None:
    result = (kit.add.s(1, 1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s()).apply_async()
    assert result.get() == 7
    assert result.parent.get() == [3, 4]
    assert result.parent.parent.get() == 2


def test_what_a_task_runs_here_is_its_child(kit: Kit) -> None:
    @kit.app.task(name="kit.outer")
    def outer() -> None:
        group(kit.add.s(1, 1)).apply_async()
        chain(kit.add.s(1, 1), kit.add.s(1)).apply_async(add_to_parent=False)

    (child,) = outer.apply_async().children
    assert child.get(disable_sync_subtasks=False) == [2]


def test_an_unknown_task_is_named(kit: Kit) -> None:
    with pytest.raises(NotRegistered, match=r"kit\.nowhere"):
        (kit.app.signature("kit.nowhere") | kit.add.s(1)).apply_async()
