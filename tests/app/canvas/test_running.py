"""Workflows give what they mean: run message by message, with and without stubs, and eagerly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.canvas.canvas_kit import Kit
from umbel import chain, chord, group, signature, xmap
from umbel.core.errors import ChordError

#: Expressions and their values; what is not named is a task of the kit.
VALUES = (
    ("add.s(1, 2)", 3),
    ("add.s(1) | add.s(2) | add.s(3)", 6),
    ("chain(add.s(1, 1))", 2),
    ("chain([add.s(1, 1), add.s(5)])", 7),
    ("chain(add.s(1, 1), chain(add.s(1), add.s(1)), add.s(1))", 5),
    ("chain(add.s(1, 1), group(), add.s(5))", 7),
    ("add.s(1, 1) | add.si(5, 5)", 10),
    ("add.s(1, 1) | group(add.s(1), add.s(2))", [3, 4]),
    ("add.s(1, 1) | group(add.s(1))", 3),
    ("chain(group(add.s(1, 1)), add.s(1))", 3),
    ("group(add.s(1, 1)) | total.s()", 2),
    ("add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()", 7),
    ("add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(1)", 8),
    ("add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | group(add.s(1), add.s(2)) | total.s()", 17),
    ("chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s(plus=1)))", [6, 7]),
    ("chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s()), total.s())", 12),
    ("group(add.s(1, 1), add.s(2, 2))", [2, 4]),
    ("group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3))", [2, 4, 6]),
    ("group(add.s(1, 1) | add.s(5), add.s(3, 3))", [7, 6]),
    ("group(chain(), add.s(3, 3))", [6]),
    ("group(chord([add.s(1, 1)], total.s()), add.s(3, 3))", [2, 6]),
    ("group()", []),
    ("chord([add.s(1, 1), add.s(2, 2)], total.s())", 6),
    ("chord((add.s(n, n) for n in range(5)), total.s())", 20),
    ("chord([], total.s(plus=3))", 3),
    ("chord(iter([]), total.s(plus=3))", 3),
    ("chord(iter([]), chord([total.s(plus=1), total.s(plus=2)], total.s()))", 3),
    ("chord(iter([]), total.s() | group(add.s(1), add.s(2)) | total.s())", 3),
    ("chord(iter([add.s(1, 1), chord([add.s(1, 1)], total.s()), group(add.s(1), add.s(2))]), total.s())", 7),
    ("chord([add.s(1, 1) | add.s(1), add.s(2, 2)], total.s())", 7),
    ("chord([group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)], total.s())", 12),
    ("chord([add.s(1, 1) | group(add.s(1), add.s(2)), add.s(3, 3)], keep.s())", [[[[3, 4], 6]], {}]),
    ("chord((add.s(1, 1) | group(add.s(1), add.s(2)) for _ in range(2)), keep.s())", [[[[3, 4], [3, 4]]], {}]),
    ("chord((add.s(1, 1) | group(add.s(1), add.s(2)) for _ in range(1)), keep.s())", [[[[3, 4]]], {}]),
    ("chord([chord([add.s(1, 1)], total.s()), add.s(3, 3)], total.s())", 8),
    ("chord([add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(1), add.s(3, 3)], total.s())", 14),
    ("chord([add.s(1, 1)], total.s() | add.s(1))", 3),
    ("chord([add.s(1, 1)], group(total.s(), total.s(plus=1)))", [2, 3]),
    ("chord([add.s(1, 1)], total.s() | group(add.s(1), add.s(2)))", [3, 4]),
    ("chord([add.s(1, 1)], chord([total.s(), total.s()], total.s()))", 4),
    ("chord([add.s(1, 1)], total.s()) | add.s(1)", 3),
    ("chord([add.s(1, 1)], total.s()) | group(add.s(1), add.s(2))", [3, 4]),
    ("chord([add.s(1, 1)], total.s()) | chord([add.s(1), add.s(2)], total.s())", 7),
    ("chord([add.s(1, 1), add.s(2, 2)])(total.s())", 6),
    ("chord([add.s(1, 1), add.s(2, 2)], interval=1)(total.s(), max_retries=3)", 6),
    ("chord([add.s(1, 1)], kwargs={'plus': 5})(total.s())", 7),
    # What comes after a header that is sent as it is read has shapes of its own.
    (
        (
            "chord([add.s(1, 1)], chord([chord([add.si(1, 1), add.si(2, 2)], group(keep.s(1), keep.s(1))),"
            " add.si(3, 3)], keep.s()))"
        ),
        [[[[[[[2, 4], 1], {}], [[[2, 4], 1], {}]], 6]], {}],
    ),
    # Of members that travel as stubs nobody sees any more that they end in groups.
    (
        (
            "add.s(1, 1) | group([add.s(1) | group(add.s(1), add.s(2)), chord([add.s(1), add.s(2)], keep.s())"
            " | group(keep.si(5), keep.si(6))]) | keep.s()"
        ),
        [[[[4, 5], [[[5], {}], [[6], {}]]]], {}],
    ),
    ("add.chunks([(1, 2), (3, 4), (5, 6)], 2)", [[3, 7], [11]]),
    ("add.chunks(((n, n) for n in range(3)), 2)", [[0, 2], [4]]),
    ("add.s(1, 1) | add.chunks([(1, 2)], 1) | keep.s()", [[[[3]]], {}]),
    ("add.map([1, 2])", [1, 2]),
    ("add.starmap([(1, 2), (3, 4)])", [3, 7]),
    ("add.s(1, 1) | add.starmap([(1, 2)])", [3]),
    ("keep.s(1, a=2)", [[1], {"a": 2}]),
)
_IDS = [text for text, _ in VALUES]


def _made(kit: Kit, text: str) -> Any:
    return eval(text, {**kit.names, "chain": chain, "chord": chord, "group": group, "signature": signature})


@pytest.mark.parametrize(("text", "value"), VALUES, ids=_IDS)
def test_a_workflow_gives_what_it_means(kit: Kit, text: str, value: Any) -> None:
    made = _made(kit, text)
    if not hasattr(made, "apply_async"):
        kit.worker.drain(2000)
        assert made.get(timeout=5) == value
        return
    assert kit.value(made) == value


@pytest.mark.parametrize(("text", "value"), VALUES, ids=_IDS)
def test_stubs_change_nothing(tmp_path: Path, text: str, value: Any) -> None:
    kit = Kit(tmp_path, workflow_inline_limit=0)
    made = _made(kit, text)
    if hasattr(made, "apply_async"):
        assert kit.value(made) == value
    kit.app.close()


@pytest.mark.parametrize(("text", "value"), VALUES, ids=_IDS)
def test_it_runs_in_the_caller(tmp_path: Path, text: str, value: Any) -> None:
    kit = Kit(tmp_path, task_always_eager=True)
    made = _made(kit, text)
    assert (made.apply_async() if hasattr(made, "apply_async") else made).get() == value
    kit.app.close()


def test_arguments_of_the_call_go_to_the_first_tasks(kit: Kit) -> None:
    assert kit.value(kit.add.s(1) | kit.add.s(1), 5) == 7
    assert kit.value(group(kit.add.s(1), kit.add.si(1, 1)), 5) == [6, 2]
    assert kit.value(chord([kit.add.s(1), kit.add.s(2)], kit.total.s()), 5) == 13
    assert kit.value((kit.add.s(1) | kit.add.s(1)).clone((5,))) == 7
    assert kit.value(group(kit.keep.s(1)).clone((5,), {"a": 1})) == [[[5, 1], {"a": 1}]]


def test_one_signature_is_sent_twice_as_two_workflows(kit: Kit) -> None:
    twice = group(kit.add.s(1, 1), kit.add.s(2, 2)) | kit.total.s()
    first, second = twice.apply_async(), twice.apply_async()
    assert first.id != second.id
    kit.worker.drain()
    assert (first.get(timeout=5), second.get(timeout=5)) == (6, 6)


def test_a_frozen_workflow_is_sent_under_its_ids(kit: Kit) -> None:
    sig = kit.add.s(1, 1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s()
    frozen = sig.freeze()
    sent = sig.apply_async()
    assert sent.id == frozen.id
    assert [one.id for one in sent.parent.results] == [one.id for one in frozen.parent.results]
    assert sent.parent.parent.id == frozen.parent.parent.id
    kit.worker.drain()
    assert frozen.get(timeout=5) == 7
    assert frozen.parent.parent.get(timeout=5) == 2


def test_links_run_after_the_part_that_they_are_for(kit: Kit) -> None:
    for made in (
        kit.add.s(1, 1) | kit.add.s(1),
        chord([kit.add.s(1, 1), kit.add.s(1, 0)], kit.total.s()),
        kit.add.s(1, 1) | group(kit.add.s(1)) | kit.total.s(),
    ):
        made.link(kit.note.s("linked"))
        assert kit.value(made) == 3
    assert kit.ran == ["(3, 'linked')"] * 3
    group(kit.add.s(1, 1), kit.add.s(2, 2)).link(kit.note.s("member"))


def test_a_failed_chain_fails_every_later_step_and_calls_each_errback_once(kit: Kit) -> None:
    made = chain(kit.fail.s(), kit.add.s(1), kit.add.s(2))
    made.link_error(kit.note.si("failed"))
    result = made.apply_async()
    kit.worker.drain()
    with pytest.raises(ValueError, match="on purpose"):
        result.get(timeout=5)
    assert result.parent.state == "FAILURE"
    assert kit.ran == ["('failed',)"]


def test_a_failed_member_fails_the_body_and_what_follows_it(kit: Kit) -> None:
    made = chord([kit.fail.s(), kit.add.s(1, 1)], kit.total.s()) | kit.add.s(1)
    result = made.apply_async()
    kit.worker.drain()
    with pytest.raises(ChordError, match="Dependency .* raised ValueError"):
        result.get(timeout=5, follow_parents=False)
    assert result.parent.state == "FAILURE"


def test_error_callbacks_of_a_chord_reach_its_header_where_that_is_set(kit: Kit) -> None:
    kit.app.conf.task_allow_error_cb_on_chord_header = True
    made = chord([kit.fail.s(), kit.add.s(1, 1)], kit.total.s())
    made.link_error(kit.note.si("error"))
    made.apply_async()
    kit.worker.drain()
    chord([kit.fail.s(), kit.add.s(1, 1)], kit.total.s()).apply_async(link_error=kit.note.si("given"))
    kit.worker.drain()
    assert kit.ran == ["('error',)"] * 2 + ["('given',)"] * 2


def test_a_chain_of_ten_thousand_is_put_together_frozen_and_sent(kit: Kit) -> None:
    made = chain(kit.add.s(1) for _ in range(10_000))
    result = made.apply_async((0,))
    depth, one = 1, result
    while one.parent is not None:
        depth, one = depth + 1, one.parent
    assert depth == 10_000
    (first,) = kit.waiting()
    assert len(first.body) < 2000


def test_a_chain_of_many_chords_is_put_together_in_little_time_and_runs(kit: Kit) -> None:
    stages = [part for _ in range(40) for part in (group(kit.add.s(1), kit.add.s(0)), kit.total.s())]
    made = chain(kit.add.s(0), *stages)
    expected = 0
    for _ in range(40):
        expected = 2 * expected + 1
    assert kit.value(made) == expected
    assert len(chain(*stages * 10).tasks) >= 20


def test_fifty_levels_run(kit: Kit) -> None:
    nested: Any = kit.add.s(1, 0)
    for _ in range(50):
        nested = chord([nested, kit.add.s(1, 0)], kit.total.s())
    assert kit.value(nested) == 51


def test_a_mapped_task_goes_where_the_task_itself_goes(kit: Kit) -> None:
    kit.app.conf.task_routes = {"kit.add": {"queue": "far"}}
    kit.add.map([1]).apply_async()
    group(kit.add.starmap([(1, 1)])).apply_async()
    kit.add.chunks([(1, 1), (2, 2)], 1).apply_async()
    group(kit.total.s(1)).apply_async(route_name="kit.add")
    kit.total.s(1).apply_async(route_name="kit.add")
    assert kit.app.broker.depth(["far"], 0.0)["far"].ready == 6
    assert repr(xmap(kit.add.s(), [1])) == "[kit.add(x) for x in [1]]"
