from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, make_app

pydantic = pytest.importorskip("pydantic")


class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    item: str
    count: int = 1


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)
    yield app
    app.close()


def test_models_travel_as_plain_values_and_arrive_as_models(app: Any, worker: MiniWorker) -> None:
    seen: list[Any] = []

    @app.task(name="kit.order", pydantic=True)
    def order(first: Order, second: Order | None = None, other: Any = None) -> Order:
        seen.append((first, second, other))
        return Order(item=first.item, count=first.count + 1)

    results = [
        order.delay(Order(item="tea")),
        order.delay({"item": "tea", "count": "2"}, second=None, other={"item": "plain"}),
    ]
    worker.drain()
    assert [result.get(timeout=5) for result in results] == [{"item": "tea", "count": 2}, {"item": "tea", "count": 3}]
    assert seen[0] == (Order(item="tea"), None, None)
    assert seen[1][2] == {"item": "plain"}


def test_what_does_not_fit_is_a_failure(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.order", pydantic=True)
    def order(first: Order) -> None: ...

    result = order.delay({"count": 1})
    worker.drain()
    assert result.failed()
    assert "ValidationError" in (result.traceback or "")


def test_strict_models_take_no_near_misses(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.order", pydantic=True, pydantic_strict=True)
    def order(first: Order) -> int:
        return int(first.count)

    right, wrong = order.delay({"item": "tea", "count": 2}), order.delay({"item": "tea", "count": "2"})
    worker.drain()
    assert right.get(timeout=5) == 2
    assert wrong.failed()


def test_an_async_task_is_validated_too(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.order", pydantic=True)
    async def order(first: Order) -> Order:
        return first

    result = order.delay(Order(item="tea", count=4))
    worker.drain()
    assert worker.runner.is_async("kit.order")
    assert result.get(timeout=5) == {"item": "tea", "count": 4}
