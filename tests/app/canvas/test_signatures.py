"""What signatures of workflows do before they are sent: changing, combining, freezing, stamping, travelling."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from tests.app.canvas.canvas_kit import Kit
from umbel import Signature, chain, chord, chunks, group, maybe_signature, signature, xmap
from umbel.app.canvas.names import StampingVisitor, _chain
from umbel.core.errors import CPendingDeprecationWarning, NotSupportedError
from umbel.core.flow.shape import leaves


def test_lists_of_options_are_made_and_lengthened(kit: Kit) -> None:
    sig = kit.add.s(1)
    assert sig.append_to_list_option("link", kit.note.s()) == kit.note.s()
    sig.append_to_list_option("link", kit.note.s())
    sig.extend_list_option("link", [kit.note.s(1), kit.note.s(2)])
    assert len(sig.options["link"]) == 3
    single = kit.add.s(1).set(link=kit.note.s())
    single.link(kit.note.s(1))
    assert len(single.options["link"]) == 2


def test_links_are_flattened_at_any_depth(kit: Kit) -> None:
    inner = kit.note.s(2)
    inner.link(kit.note.s(3))
    sig = kit.add.s(1)
    sig.link(inner)
    assert [one["args"] for one in sig.flatten_links()] == [(1,), (2,), (3,)]


def test_a_group_links_its_first_member_and_errors_of_every_one(kit: Kit) -> None:
    made = group(kit.add.s(1), kit.add.s(2))
    made.link(kit.note.s())
    linked = made.link_error(kit.note.s("e"))
    first, second = made.tasks
    assert first.options["link"] == [kit.note.si()]
    assert "link" not in second.options
    assert len(linked) == 2
    assert first.options["link_error"] == second.options["link_error"] == [kit.note.s("e")]


def test_a_chord_links_its_body_and_says_so_for_errors(kit: Kit) -> None:
    made = chord([kit.add.s(1)], kit.total.s())
    made.link(kit.note.s())
    with pytest.warns(CPendingDeprecationWarning, match="task_allow_error_cb_on_chord_header"):
        made.link_error(kit.note.s("e"))
    assert made.body.options == {"link": [kit.note.s()], "link_error": [kit.note.s("e")]}
    assert made.tasks[0].options == {}
    made.set_immutable(True)
    assert (made.tasks[0].immutable, made.body.immutable) == (True, False)


def test_a_group_and_a_chord_say_what_they_cannot_take(kit: Kit) -> None:
    with pytest.raises(TypeError, match="chord"):
        group(kit.add.s(1)).apply_async(link=kit.note.s())
    with pytest.raises(TypeError, match="needs a body"):
        chord([kit.add.s(1)]).apply_async()
    with pytest.raises(TypeError, match="signatures"):
        group([1, 2])
    with pytest.raises(TypeError, match="signatures"):
        chain(kit.add.s(1), 2)
    with pytest.raises(TypeError):
        kit.add.s(1) | 2
    with pytest.raises(NotSupportedError, match="use_link"):
        chain(kit.add.s(1), use_link=True)
    with pytest.raises(NotSupportedError, match="gossip"):
        chain(kit.add.s(1), kit.add.s(1)).election()
    with pytest.raises(ValueError, match="at least 1"):
        kit.add.chunks([], 0)


def test_a_chord_needs_a_store(tmp_path: Any) -> None:
    kit = Kit(tmp_path, result_backend="disabled")
    for made in (
        chord([kit.add.s(1)], kit.total.s()),
        kit.add.s(1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s(),
        group(chord([kit.add.s(1)], kit.total.s())),
        chord((kit.add.s(n) for n in range(2)), kit.total.s()),
    ):
        with pytest.raises(NotImplementedError, match="result_backend"):
            made.apply_async()
    assert kit.waiting() == []
    kit.app.close()


def test_skew_spreads_the_members_in_time(kit: Kit) -> None:
    made = group(kit.add.s(n) for n in range(5)).skew(start=1, stop=4)
    assert [one.options["countdown"] for one in made.tasks] == [1, 2, 3, 4, 4]
    made = group(kit.add.s(n) for n in range(3)).skew(start=3, stop=3)
    assert [one.options["countdown"] for one in made.tasks] == [3, 3, 3]
    with pytest.raises(ValueError, match="less"):
        group(kit.add.s(n) for n in range(2)).skew(start=3, stop=2)


def test_what_is_no_signature_is_refused_where_it_is_written_or_sent(kit: Kit) -> None:
    add, total = kit.add, kit.total
    for wrong in (
        lambda: group(1, 2),
        lambda: group(add, add),
        group(n for n in range(2)),
        lambda: chord([1]),
        lambda: chord([add.delay(1)]),
        lambda: chord(n for n in range(2))(total.s()),
        lambda: chord([add.s(1)])("kit.total"),
        lambda: add.apply_async((1,), link="kit.note"),
        lambda: add.apply_async((1,), link_error=[kit.note]),
        lambda: add.s(1).set(link=kit.note).delay(),
        chain(add.s(1).on_error("kit.note"), add.s(2)),
    ):
        with pytest.raises(TypeError, match=r"signatures? \(task\.s\(\.\.\.\)\), not|not signatures"):
            wrong()


def test_a_generator_is_read_once_and_says_so(kit: Kit) -> None:
    made = group(kit.add.s(n, n) for n in range(3))
    assert kit.value(made) == [0, 2, 4]
    with pytest.raises(RuntimeError, match="list"):
        made.apply_async()
    looked_at = group(kit.add.s(n, n) for n in range(3))
    assert len(looked_at) == 3
    assert kit.value(looked_at) == kit.value(looked_at) == [0, 2, 4]


def test_clones_leave_the_original_alone(kit: Kit) -> None:
    for made in (
        kit.add.s(1) | kit.add.s(2),
        group(kit.add.s(1), kit.add.s(2)),
        chord([kit.add.s(1)], kit.total.s()),
        kit.add.chunks([(1, 1)], 1),
        kit.add.map([1]),
    ):
        before = json.dumps(made)
        twin = made.clone(queue="other")
        assert type(twin) is type(made)
        assert twin.options["queue"] == "other"
        for leaf in leaves(twin) if made["subtask_type"] else ():
            leaf["options"]["queue"] = "changed"
        assert json.dumps(made) == before


def test_they_travel_as_json_and_pickle_and_keep_their_kind(kit: Kit) -> None:
    for made in (
        kit.add.s(1),
        kit.add.s(1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s(),
        group(kit.add.s(1), kit.add.s(2) | kit.add.s(3)),
        chord([kit.add.s(1)], kit.total.s()),
    ):
        wire = json.loads(json.dumps(made))
        again = signature(wire, app=kit.app)
        assert type(again) is type(made)
        assert repr(again) == repr(made)
        assert json.loads(json.dumps(again)) == wire
        assert type(pickle.loads(pickle.dumps(made))) is type(made)
        assert copy.deepcopy(made) == made
        assert maybe_signature(made) is made
        assert maybe_signature(made, clone=True) is not made
    assert isinstance(maybe_signature(json.loads(json.dumps(kit.add.s(1) | kit.add.s(2)))), _chain)
    mapped = xmap.from_dict(json.loads(json.dumps(kit.add.map([1, 2]))), app=kit.app)
    assert kit.value(mapped) == [1, 2]
    parts = chunks.from_dict(json.loads(json.dumps(kit.add.chunks([(1, 1)], 1))), app=kit.app)
    assert kit.value(parts) == [[2]]
    assert maybe_signature(None) is None


def test_a_type_of_ones_own_is_found_by_its_name(kit: Kit) -> None:
    @Signature.register_type("kit.twice")
    class Twice(Signature[Any]):
        @classmethod
        def from_dict(cls, d: Any, app: Any = None) -> Any:
            return cls._made(d, app)

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            return [super(Twice, self).apply_async(*args, **kwargs) for _ in range(2)]

    try:
        made = signature({**kit.add.s(1, 1), "subtask_type": "kit.twice"}, app=kit.app)
        assert isinstance(made, Twice)
        assert len(made.apply_async()) == 2
    finally:
        del Signature.TYPES["kit.twice"]


def test_freeze_gives_results_that_are_linked_back(kit: Kit) -> None:
    result = (kit.add.s(1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s() | kit.add.s(1)).freeze()
    total = result.parent
    header = total.parent
    assert [len(header.results), header.parent.parent] == [2, None]
    assert group(kit.add.s(1)).freeze("known").id == "known"
    assert (kit.add.s(1) | kit.add.s(2)).freeze("known").id == "known"
    assert kit.add.s(1).freeze("known").id == "known"
    placed = kit.add.s(1) | kit.add.s(2)
    placed.freeze(group_id="g", group_index=3, chord=dict(kit.total.s()), root_id="r", parent_id="p")
    last = placed.tasks[-1].options
    assert (last["group_id"], last["group_index"], last["chord"]["task"]) == ("g", 3, "kit.total")
    assert (placed.root_id, placed.parent_id) == ("r", "p")


def test_options_of_the_whole_reach_the_parts_that_they_are_for(kit: Kit) -> None:
    result = (kit.add.s(1, 1) | kit.add.s(2)).apply_async(task_id="last", countdown=60, headers={"x": 1})
    chorded = chord([kit.add.s(1, 1)], kit.total.s()).apply_async(task_id="body", queue="far", countdown=60)
    grouped = group(kit.add.s(1, 1)).apply_async(task_id="group")
    assert (result.id, chorded.id, grouped.id) == ("last", "body", "group")
    depth = kit.app.broker.depth(["celery", "far"], 0.0)
    assert (depth["celery"].scheduled, depth["far"].scheduled) == (1, 1)
    with pytest.raises(Exception, match="unknown option"):
        (kit.add.s(1, 1) | kit.add.s(2)).apply_async(cuontdown=3)


def test_first_tasks_are_checked_like_single_ones(kit: Kit) -> None:
    for made in (
        group(kit.add.s(1, 2, 3, 4), kit.add.s(1)),
        kit.add.s(1, 2, 3, 4) | kit.add.s(1),
        chord([kit.add.s(1, 2, 3, 4)], kit.total.s()),
    ):
        with pytest.raises(TypeError):
            made.apply_async()


# --- stamps -----------------------------------------------------------------------------------------------


class _Named(StampingVisitor):
    """Stamps each task with its name, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        self.asked.append(sig.task)
        return {"name": sig.task}

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        self.asked.append("group")
        return {"within": "group"}

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        self.asked.append("chain")
        return {}

    def on_chord_body(self, chord: Any, **headers: Any) -> dict[str, Any]:
        self.asked.append("body")
        return {"within": "body"}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        self.asked.append("callback")
        return {"called": True}


def _stamps(sig: Any) -> dict[str, Any]:
    return {name: sig["options"][name] for name in sig["options"]["stamped_headers"]}


def test_a_visitor_stamps_every_task_of_a_workflow(kit: Kit) -> None:
    visitor = _Named()
    made = kit.add.s(1) | group(kit.add.s(1), kit.add.s(2)) | kit.total.s().set(link=[kit.note.s()])
    made.stamp(visitor)
    first, following = made.tasks
    assert _stamps(first) == {"name": "kit.add"}
    assert _stamps(following.tasks[0]) == {"within": "group", "name": "kit.add"}
    assert _stamps(following.body) == {"within": "body", "name": "kit.total"}
    assert _stamps(following.body.options["link"][0]) == {"within": "body", "called": True, "name": "kit.note"}
    assert visitor.asked == [
        "chain", "kit.add", "group", "kit.add", "kit.add", "body", "callback", "kit.note", "kit.total",
    ]  # fmt: skip


def test_stamps_are_replaced_or_collected_and_win_over_later_options(kit: Kit) -> None:
    sig = kit.add.s(1).stamp(batch=1)
    assert _stamps(sig.stamp(batch=2)) == {"batch": 2}
    assert _stamps(sig.stamp(append_stamps=True, batch=3)) == {"batch": [3, 2]}
    assert sig.clone(batch=9).options["batch"] == [3, 2]


def test_stamps_travel_as_headers_to_the_last_task(kit: Kit) -> None:
    seen = []

    @kit.app.task(name="kit.look", bind=True)
    def look(self: Any, *_: Any) -> None:
        seen.append((self.request.stamps, self.request.stamped_headers))

    made = chord([look.s()], look.s()) | look.s()
    made.stamp(batch=7)
    kit.value(made)
    assert seen == [({"batch": 7}, ["batch"])] * 3
