"""Many calls in few transactions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from umbel import Umbel


@pytest.fixture
def add(app: Umbel) -> Any:
    @app.task(name="proj.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def ready(app: Umbel) -> int:
    return sum(depth.ready for depth in app.broker.depth([], time.time()).values())


def test_results_come_in_the_order_of_the_calls(app: Umbel, add: Any) -> None:
    results = add.delay_many((number, 1) for number in range(2500))
    assert len({result.id for result in results}) == 2500
    assert [result.id for result in results] == sorted(result.id for result in results)
    assert ready(app) == 2500


def test_options_hold_for_all_of_them(app: Umbel, add: Any) -> None:
    add.apply_async_many([((1,), {}), ((), {"x": 2})], queue="bulk", countdown=100)
    depth = app.broker.depth(["bulk"], time.time())["bulk"]
    assert (depth.ready, depth.scheduled) == (0, 2)


def test_a_wrong_call_of_a_chunk_stores_none_of_it(app: Umbel, add: Any) -> None:
    with pytest.raises(TypeError, match="'x'"):
        add.delay_many([(1,), ()])
    assert ready(app) == 0


def test_by_name_and_without_any_calls(app: Umbel) -> None:
    assert len(app.send_many("other", [((1,), {}), ((2,), {})])) == 2
    assert app.send_many("other", []) == []


def test_one_id_for_many_calls_is_refused(add: Any) -> None:
    with pytest.raises(TypeError, match="task_id"):
        add.apply_async_many([((1,), {})], task_id="same")


def test_eager_mode_runs_them_here(app: Umbel, add: Any) -> None:
    app.conf.task_always_eager = True
    assert [result.get() for result in add.delay_many([(1, 2), (3, 4)])] == [3, 7]
