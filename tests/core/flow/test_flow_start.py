"""What each kind of workflow sends first, and in which form the rest travels with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.flow.flow_kit import chain, chord, group, numbers, task
from umbel.core.flow.dooming import Membership, doomed
from umbel.core.flow.freezing import freeze
from umbel.core.flow.starting import Call, Opened, start


def _sent(tree: Any, *args: Any, **options: Any) -> list[Any]:
    return list(start(freeze(tree, numbers()), args, options=options))


def _calls(tree: Any, *args: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [(one.task, one.args) for one in _sent(tree, *args) if isinstance(one, Call)]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (task("a", 1), [("a", (9, 1))]),
        (task("a", 1, immutable=True), [("a", (1,))]),
        (chain(task("a", 1), task("b")), [("a", (9, 1))]),
        (group(task("a"), group(task("b"), task("c", 2))), [("a", (9,)), ("b", (9,)), ("c", (9, 2))]),
        (chord([task("a"), chain(task("b"), task("c"))], task("s")), [("a", (9,)), ("b", (9,))]),
        (chord([], task("s", 1)), [("s", ([], 1))]),
        (chain(chord([], task("s")), task("t")), [("s", ([],))]),
        (chain(), []),
        (group(), []),
        (chain(group(), task("a")), [("a", (9,))]),
        (chain(group(task("a")), task("b")), [("a", (9,))]),
        (chain(group(task("a"), task("b")), group(task("c"), task("d"))), [("a", (9,)), ("b", (9,))]),
    ],
)
def test_first_calls(tree: Any, expected: Any) -> None:
    assert _calls(tree, 9) == expected


def test_chunks_become_starmaps_of_one_group() -> None:
    chunks = {**group(), "task": "celery.chunks", "subtask_type": None}
    chunks["kwargs"] = {"task": task("a"), "it": [[1], [2], [3]], "n": 2}
    calls = _sent(chunks)
    assert [(call.task, call.kwargs["it"]) for call in calls] == [
        ("celery.starmap", [[1], [2]]),
        ("celery.starmap", [[3]]),
    ]
    assert [call.options["group_index"] for call in calls] == [0, 1]


def test_a_chain_travels_reversed_with_what_followed_it_before_at_the_front() -> None:
    (call,) = _sent(chain(task("a"), task("b"), task("c")), chain=[task("z", task_id="z")])
    assert [step["task"] for step in call.options["chain"]] == ["z", "c", "b"]


def test_options_of_a_chain_reach_the_steps_that_they_are_for() -> None:
    tree = chain(task("a"), task("b"), task_id="T", countdown=5, link=[task("l")], link_error=task("e"))
    (call,) = _sent(tree)
    (last,) = call.options["chain"]
    assert call.options["countdown"] == 5
    assert "link" not in call.options
    assert last["options"]["task_id"] == "T"
    assert [each["task"] for each in last["options"]["link"]] == ["l"]
    assert [each["task"] for each in (*call.options["link_error"], *last["options"]["link_error"])] == ["e", "e"]


def test_options_of_a_chord_are_split_between_header_and_body() -> None:
    tree = chord([task("a")], task("s"), countdown=5, queue="q", link=[task("l")], link_error=[task("e")])
    call, _ = _sent(tree)
    body = call.options["chord"]["options"]
    assert (call.options["countdown"], call.options["queue"]) == (5, "q")
    assert "link" not in call.options
    assert "countdown" not in body
    assert (body["queue"], len(body["link"]), len(body["link_error"])) == ("q", 1, 1)


def test_a_header_member_names_its_place_and_the_body_in_celerys_form() -> None:
    first, second, opened = _sent(chord([task("a"), task("b")], task("s")))
    assert (first.options["group_index"], second.options["group_index"]) == (0, 1)
    assert first.options["group_id"] == second.options["group_id"] == opened.group
    assert first.options["chord"]["task"] == "s"
    assert first.options["chord"]["options"]["group_id"] == opened.group
    assert opened == Opened(opened.group, 2, first.options["chord"])


def test_leaves_of_nested_headers_count_in_the_header_around_them() -> None:
    tree = chord(
        [chain(task("a"), group(task("b"), task("c"))), chord([task("d")], task("e")), group(task("f"))], task("s")
    )
    sizes = {one.group: one.size for one in _sent(tree) if isinstance(one, Opened)}
    assert sorted(sizes.values()) == [1, 4]


def test_a_failed_chain_tells_the_header_that_its_last_task_is_in() -> None:
    call, *_ = _sent(chord([chain(task("a"), task("b"), task("c")), task("d")], task("s")))
    found = doomed(reversed(call.options["chain"]))
    b, c = (step["options"]["task_id"] for step in reversed(call.options["chain"]))
    assert found.ids == (b, c)
    (place,) = found.memberships
    assert isinstance(place, Membership)
    assert (place.index, place.task_id, place.chord["task"]) == (0, c, "s")


def test_a_header_that_opens_later_names_no_group_yet() -> None:
    """Celery's workers give such a header a new id, and leave members alone that name one already."""
    later = chord([task("c"), chain(task("d"), task("e")), chord([task("f")], task("g"))], task("t"))
    call, *_ = _sent(chord([task("a"), task("b")], chain(task("s"), later)))
    (embedded,) = call.options["chord"]["options"]["chain"]
    plain, steps, inner = embedded["kwargs"]["header"]["kwargs"]["tasks"]
    places = [plain["options"], steps["kwargs"]["tasks"][-1]["options"], inner["kwargs"]["body"]["options"]]
    assert [place["group_index"] for place in places] == [0, 1, 2]
    assert not any("group_id" in place for place in places)


def test_what_follows_a_body_travels_in_its_options_and_fails_with_it() -> None:
    call, *_ = _sent(chord([task("a"), task("b")], task("s")), chain=[task("y", task_id="Y"), task("x", task_id="X")])
    body = call.options["chord"]
    assert (body["task"], [step["task"] for step in body["options"]["chain"]]) == ("s", ["y", "x"])
    assert doomed([body]).ids == (body["options"]["task_id"], "X", "Y")
