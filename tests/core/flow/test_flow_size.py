"""Messages stay small: nothing grows with the square, at any length, width or depth."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.flow.flow_kit import Fleet, chain, chord, group, numbers, task
from umbel.core.flow.freezing import freeze
from umbel.core.flow.starting import Call, start
from umbel.core.flow.storing import is_stub, shrink, stub_key, unpack


def _run(tree: Any, limit: int = 4096) -> Fleet:
    small, pieces = shrink(freeze(tree, numbers()), limit, numbers("flow:"), "celery.umbel")
    return Fleet(pieces).run(small)


def _links(count: int) -> list[dict[str, Any]]:
    return [task("proj.add", number) for number in range(count)]


@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_bytes_of_a_chain_grow_with_its_length_only(count: int) -> None:
    fleet = _run(chain(*_links(count)))
    assert len(fleet.ran()) == count
    assert fleet.bytes <= 1000 * count
    assert fleet.largest < 1500


def test_a_chain_of_ten_thousand_fits_into_the_stack() -> None:
    nested: Any = task("proj.add", 0)
    for number in range(1, 200):
        nested = chain(nested, task("proj.add", number))
    frozen = freeze(chain(*_links(10_000), nested), numbers())
    assert len(frozen["kwargs"]["tasks"]) == 10_200


def test_bytes_of_a_header_grow_with_its_width_only() -> None:
    wide = chord([task("proj.add", n) for n in range(1000)], chain(*_links(50)))
    fleet = _run(wide)
    assert len(fleet.ran()) == 1050
    assert fleet.bytes < 700 * 1050


def test_twenty_chords_of_fifty_stay_near_the_size_of_plain_tasks() -> None:
    stages = [part for _ in range(20) for part in (group(*_links(50)), task("proj.total"))]
    fleet = _run(chain(*stages))
    assert len(fleet.ran()) == 20 * 51
    assert fleet.largest < 1500
    assert fleet.bytes < 600 * 20 * 51


def test_fifty_levels_of_chords_stay_small_and_shallow() -> None:
    nested: Any = task("proj.add", 0)
    for number in range(50):
        nested = chord([nested, chain(task("proj.add", number), task("proj.add", 1))], task("proj.total"))
    fleet = _run(nested)
    assert all(known.complete for known in fleet.groups.values())
    assert len(fleet.ran()) == 151
    assert fleet.largest < 5000


def test_a_later_step_that_is_nested_deeply_is_stored_though_it_is_sent_once() -> None:
    nested: Any = task("proj.add", 0)
    for _ in range(30):
        nested = chord([nested, task("proj.add", 1)], task("proj.total"))
    small, pieces = shrink(freeze(chain(task("proj.add", 1), nested), numbers()), 10**9, numbers("f:"), "q")
    (call,) = start(small)
    assert [is_stub(step) for step in call.options["chain"]] == [True]  # type: ignore[union-attr]
    assert len(Fleet(pieces).run(small).ran()) == 62


def test_a_short_workflow_carries_what_follows_and_stores_nothing() -> None:
    tree = chain(task("a"), group(task("b"), task("c")), task("d"))
    frozen = freeze(tree, numbers())
    assert shrink(frozen, 4096, numbers("flow:"), "q") == (frozen, {})


def test_a_body_no_larger_than_a_stub_is_never_stored() -> None:
    small, pieces = shrink(freeze(chord(_links(1000), task("s")), numbers()), 0, numbers("flow:"), "q")
    assert pieces == {}
    assert small["kwargs"]["body"]["task"] == "s"


def test_a_stub_names_the_last_task_and_the_place_that_it_ends_in() -> None:
    inner = chain(*_links(20))
    small, pieces = shrink(freeze(chord([inner, task("a")], task("s")), numbers()), 0, numbers("flow:"), "q")
    stub = small["kwargs"]["header"]["kwargs"]["tasks"][0]["kwargs"]["tasks"][-1]
    assert is_stub(stub)
    assert stub["options"]["queue"] == "q"
    assert stub["options"]["group_index"] == 0
    assert stub["options"]["chord"]["task"] == "s"
    step, following = unpack(pieces[stub_key(stub)])
    while following is not None:
        step, following = unpack(pieces[stub_key(following)])
    assert stub["options"]["task_id"] == (step["options"]["task_id"])


def test_what_json_cannot_say_travels_in_the_messages() -> None:
    tree = freeze(chain(*(task("a", object()) for _ in range(50))), numbers())
    assert shrink(tree, 0, numbers("flow:"), "q") == (tree, {})


#: An argument that makes a body larger than its stub.
_LARGE = "x" * 300


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (task("s", _LARGE), False),
        (task("s", _LARGE, link_error=[task("e")]), True),
        (chain(task("s", _LARGE, link_error=[task("e")]), task("t")), True),
        (group(task("s", _LARGE), task("t")), True),
    ],
    ids=["plain", "errback", "chain", "group"],
)
def test_the_stub_of_a_body_says_whom_to_tell_where_its_failure_ends_more(body: Any, told: bool) -> None:
    header = [task("proj.add", number) for number in range(9)]
    small, pieces = shrink(freeze(chord(header, body), numbers()), 0, numbers("flow:"), "celery.umbel")
    first = next(one for one in start(small) if isinstance(one, Call))
    stub = first.options["chord"]
    assert is_stub(stub)
    assert stub_key(stub) in pieces
    errbacks = stub["options"].get("link_error", ())
    assert [(one["task"], one["args"]) for one in errbacks] == [("umbel.fail_piece", [stub_key(stub)])] * told
