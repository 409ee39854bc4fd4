"""Many results as one: sets and groups, asked, awaited, kept and drawn."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import make_app
from umbel.app.async_result import AsyncResult
from umbel.app.group_result import GroupResult, result_from_tuple
from umbel.app.records import record_of
from umbel.app.result import EagerResult
from umbel.app.result_set import ResultIds, ResultSet
from umbel.core import errors


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)
    yield app
    app.close()


def end(app: Any, task_id: str, value: Any, state: str = "SUCCESS", children: list[Any] | None = None) -> None:
    now = time.time()
    app.store.put([record_of(app, task_id, state, value, now=now, children=children)], now)


def group(app: Any, *ids: str) -> GroupResult[Any]:
    return GroupResult("g", [AsyncResult(one, app=app) for one in ids], app=app)


def test_values_come_in_the_order_of_the_group_however_they_end(app: Any) -> None:
    result = group(app, "a", "b", "c")
    for task_id in "cba":
        end(app, task_id, task_id.upper())
    assert result.get(timeout=5) == result.join(timeout=5) == result.join_native(timeout=5) == ["A", "B", "C"]
    assert (result.ready(), result.successful(), result.failed(), result.waiting()) == (True, True, False, False)
    assert result.completed_count() == 3


def test_a_failure_is_raised_before_the_others_have_ended(app: Any) -> None:
    result = group(app, "a", "b")
    end(app, "b", ValueError("no"), "FAILURE")
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=30)
    end(app, "a", 1)
    first, second = result.get(timeout=5, propagate=False)
    assert (first, type(second)) == (1, ValueError)
    assert (result.failed(), result.successful(), result.completed_count()) == (True, False, 1)


def test_time_is_for_all_together(app: Any) -> None:
    result = group(app, "a", "b")
    end(app, "a", 1)
    with pytest.raises(errors.TimeoutError, match="1 of 2 results"):
        result.get(timeout=0.05)


def test_what_is_still_running_is_waited_for(app: Any) -> None:
    result = group(app, *(str(n) for n in range(40)))
    threads: list[threading.Thread] = []

    def work() -> None:
        for n in range(40):
            end(app, str(n), n)

    def begin() -> None:
        if not threads:
            threads.append(threading.Thread(target=work))
            threads[0].start()

    assert result.get(timeout=10, interval=0.01, on_interval=begin) == list(range(40))
    threads[0].join()


def test_each_result_is_handed_on_as_it_ends(app: Any) -> None:
    result = group(app, "a", "b", "c")
    end(app, "b", 2)
    seen = result.iter_native(timeout=10)
    assert next(seen)[0] == "b"
    end(app, "c", 3)
    task_id, meta = next(seen)
    assert (task_id, meta["result"]) == ("c", 3)
    end(app, "a", 1)
    assert [task_id for task_id, _ in seen] == ["a"]


def test_an_event_loop_gets_them_as_they_end(app: Any) -> None:
    async def main() -> tuple[list[str], list[int]]:
        result = group(app, "a", "b", "c")
        end(app, "c", 3)
        order: list[str] = []
        async for one in result:
            order.append(one.id)
            for waiting in {"b", "a"} - set(order):
                end(app, waiting, ord(waiting) - 96)
                break
        return order, await group(app, "a", "b", "c")

    order, values = asyncio.run(asyncio.wait_for(main(), 20))
    assert order[0] == "c"
    assert sorted(order) == ["a", "b", "c"]
    assert values == [1, 2, 3]


def test_values_may_go_to_a_callback(app: Any) -> None:
    result = group(app, "a", "b")
    end(app, "a", 1)
    end(app, "b", 2)
    values: list[Any] = []
    messages: list[str] = []
    got = result.get(
        timeout=5,
        callback=lambda task_id, value: values.append((task_id, value)),
        on_message=lambda meta: messages.append(meta["task_id"]),
    )
    assert (got, values, sorted(messages)) == ([], [("a", 1), ("b", 2)], ["a", "b"])


def test_then_calls_back_once_all_have_ended(app: Any) -> None:
    done, failed = threading.Event(), threading.Event()
    group(app, "a", "b").then(lambda _: done.set())
    group(app, "a", "c").then(lambda _: done.clear(), on_error=lambda _: failed.set())
    end(app, "a", 1)
    end(app, "b", 2)
    end(app, "c", ValueError("no"), "FAILURE")
    assert done.wait(10)
    assert failed.wait(10)


def test_groups_within_groups_are_lists_within_lists(app: Any) -> None:
    inner = GroupResult("inner", [AsyncResult("b", app=app), AsyncResult("c", app=app)], app=app)
    result = GroupResult("g", [AsyncResult("a", app=app), inner], app=app)
    for task_id in "abc":
        end(app, task_id, task_id)
    assert result.get(timeout=5) == ["a", ["b", "c"]]
    assert result.as_list() == ["a", "b", "c"]
    assert asyncio.run(result.aget(timeout=5)) == ["a", ["b", "c"]]


def test_a_set_holds_each_result_once(app: Any) -> None:
    a, b, c = (AsyncResult(one, app=app) for one in "abc")
    results: ResultSet[Any] = ResultSet([a], app=app)
    results.add(b)
    results.add(b)
    results.update([a, c, c])
    assert list(results) == [a, b, c]
    results.remove("a")
    results.discard("z")
    with pytest.raises(KeyError):
        results.remove("a")
    assert [results[0].id, len(results)] == ["b", 2]
    results.clear()
    assert (list(results), results.get(timeout=0), results.ready()) == ([], [], True)
    with pytest.raises(errors.NotSupportedError, match="ready_barrier"):
        ResultSet([], ready_barrier=1)


def test_results_that_are_here_already_need_no_store() -> None:
    results: ResultSet[Any] = ResultSet([EagerResult("a", 1, "SUCCESS"), EagerResult("b", 2, "SUCCESS")])
    assert results.get() == [1, 2]
    assert (results.ready(), results.completed_count()) == (True, 2)
    nested: ResultSet[Any] = ResultSet([results, EagerResult("c", 3, "SUCCESS"), EagerResult("d", None, "FAILURE")])
    assert (nested.completed_count(), len(nested)) == (2, 3)


def test_of_very_many_tasks_only_the_ids_are_kept(app: Any) -> None:
    ids = [str(n) for n in range(2500)]
    now = time.time()
    app.store.put([record_of(app, one, "SUCCESS", int(one), now=now) for one in ids], now)
    result: GroupResult[Any] = GroupResult("g", ResultIds(ids, app), app=app)
    assert (len(result), result.completed_count(), result[1].id) == (2500, 2500, "1")
    assert sum(result.get(timeout=10)) == sum(range(2500))


def test_a_group_is_found_again_by_its_id(app: Any) -> None:
    result = GroupResult(
        "g", [AsyncResult("a", app=app), GroupResult("h", [AsyncResult("b", app=app)], app=app)], app=app
    )
    result.save()
    found = GroupResult.restore("g", app=app)
    assert found is not None
    assert (found, found.as_list()) == (result, ["a", "b"])
    assert app.GroupResult.restore("g") == result == app.GroupResult("g", result.results)
    result.delete()
    assert GroupResult.restore("g", app=app) is None
    with pytest.raises(ValueError, match="without an id"):
        GroupResult(None, [], app=app).save()


def test_tuples_say_groups_and_what_came_before_them(app: Any) -> None:
    result = AsyncResult(
        "body", app=app, parent=GroupResult("g", [AsyncResult("a", app=app)], AsyncResult("first", app=app), app)
    )
    back = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app)
    assert back.parent.parent.id == "first"
    assert [one.id for one in back.parent.results] == ["a"]
    assert result_from_tuple(back, app) is back
    assert bool(GroupResult("g", [], app=app))
    assert not GroupResult(None, [], app=app)
    assert pickle.loads(pickle.dumps(GroupResult("g", [EagerResult("a", 1, "SUCCESS")]))).get() == [1]


def test_forgetting_a_group_forgets_its_results(app: Any) -> None:
    result = group(app, "a", "b")
    end(app, "a", 1)
    end(app, "b", 2)
    result.forget()
    assert not group(app, "a").ready()


def test_revoking_a_group_revokes_its_tasks(app: Any) -> None:
    result = group(app, "a", "b")
    result.revoke()
    assert app.store.revoked(["a", "b", "c"]) == {"a", "b"}


def test_cancelling_reaches_what_came_before_and_what_follows(app: Any) -> None:
    first = AsyncResult("first", app=app)
    header = GroupResult("g", [AsyncResult("a", app=app), AsyncResult("b", app=app)], first, app)
    body = AsyncResult("body", app=app, parent=header)
    end(app, "first", 1)
    end(app, "a", 1, children=[(("c", None), None)])
    assert sorted(body.cancel()) == ["b", "body", "c"]
    assert app.store.revoked(["first", "a", "b", "c", "body"]) == {"b", "c", "body"}
    assert sorted(header.cancel()) == ["b", "c"]
    end(app, "b", 1)
    end(app, "c", 1)
    assert header.cancel() == []


# --- graphs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def workflow(app: Any) -> Any:
    """What `first | group(b, c)` leaves behind."""
    end(app, "first", 1, children=[(("g", None), [(("b", None), None), (("c", None), None)])])
    end(app, "b", 2, children=[(("d", None), None)])
    end(app, "c", 3)
    end(app, "d", 4)
    return AsyncResult("first", app=app)


def test_everything_that_a_task_sent_is_walked_over(workflow: Any) -> None:
    pairs = [(parent and parent.id, node.id) for parent, node in workflow.iterdeps()]
    assert pairs == [(None, "first"), ("first", "g"), ("g", "b"), ("g", "c"), ("b", "d")]
    assert [value for _, value in workflow.collect(timeout=5)] == [1, [2, 3], 2, 3, 4]
    assert workflow.get_leaf() == 4


def test_a_walk_stops_at_what_has_not_ended(app: Any) -> None:
    end(app, "a", 1, children=[(("b", None), None)])
    result = AsyncResult("a", app=app)
    with pytest.raises(errors.IncompleteStream):
        list(result.iterdeps())
    assert [node.id for _, node in result.iterdeps(intermediate=True)] == ["a", "b"]


def test_a_workflow_is_drawn_as_a_tree_and_for_graphviz(workflow: Any, app: Any) -> None:
    assert str(workflow.graph) == (
        "first SUCCESS\n└─ group g (2/2 done)\n   ├─ b SUCCESS\n   │  └─ d SUCCESS\n   └─ c SUCCESS"
    )
    dot = workflow.graph("dot")
    assert '"first" -> "g";' in dot
    assert '"b" [label="b SUCCESS", fillcolor=palegreen];' in dot
    assert str(AsyncResult("e", app=app, parent=workflow).graph).startswith("first SUCCESS\n├─")
    with pytest.raises(ValueError, match="text"):
        workflow.graph("png")


def test_a_chord_is_drawn_between_what_sent_it_and_its_body(app: Any) -> None:
    header = [(("a", None), None), (("b", None), None)]
    end(app, "first", 1, children=[(("body", (("g", None), header)), None)])
    for task_id, state in (("a", "REVOKED"), ("b", "SUCCESS"), ("body", "SUCCESS")):
        end(app, task_id, 1, state)
    assert str(AsyncResult("first", app=app).graph) == (
        "first SUCCESS\n└─ group g (2/2 done)\n   ├─ a REVOKED\n   ├─ b SUCCESS\n   └─ body SUCCESS"
    )
