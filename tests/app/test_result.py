from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, job_of, make_app
from umbel.app.app import Umbel
from umbel.app.async_result import AsyncResult
from umbel.app.ids import IdSource
from umbel.app.lifecycle import age_of
from umbel.app.records import record_of
from umbel.app.result import allow_join_result, denied_join_result, result_from_tuple
from umbel.app.waiting import waiter_of
from umbel.core import errors


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)

    @app.task(name="kit.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="kit.fail")
    def fail() -> None:
        raise ValueError("no")

    yield app
    app.close()


def store(app: Any, task_id: str, state: str, value: Any, **more: Any) -> None:
    now = time.time()
    app.store.put([record_of(app, task_id, state, value, now=now, **more)], now)


def test_an_id_of_none_is_refused(app: Any) -> None:
    with pytest.raises(ValueError, match="id"):
        AsyncResult(None, app=app)  # type: ignore[arg-type]


def test_results_are_equal_by_id(app: Any) -> None:
    first, second = AsyncResult("a", app=app), AsyncResult("a", app=app)
    assert first == second == "a"
    assert first != AsyncResult("b", app=app)
    assert len({first, second}) == 1
    assert str(first) == "a"
    assert copy.copy(first) == first


def test_a_result_survives_pickle(tmp_path: Path) -> None:
    app = Umbel("kit", set_as_current=False, broker=f"sqlite:///{tmp_path}/kit.db")
    back = pickle.loads(pickle.dumps(AsyncResult("a", app=app, parent=AsyncResult("p", app=app))))
    assert (back.id, back.parent.id) == ("a", "p")


def test_tuples_describe_results_and_their_parents(app: Any) -> None:
    result = AsyncResult("c", app=app, parent=AsyncResult("b", app=app, parent=AsyncResult("a", app=app)))
    back = result_from_tuple(result.as_tuple(), app)
    assert back.as_list() == result.as_list() == ["c", "b", "a"]


def test_the_state_follows_the_task(app: Any, worker: MiniWorker) -> None:
    result = app.tasks["kit.add"].delay(1, 2)
    assert (result.state, str(result.lifecycle), result.ready()) == ("PENDING", "queued", False)
    (delivery,) = worker.lease()
    assert str(result.lifecycle) == "leased"
    store(app, result.id, "PROGRESS", {"done": 1})
    assert (result.state, result.info, str(result.lifecycle)) == ("PROGRESS", {"done": 1}, "started")
    worker.commit(delivery, worker.runner.run(job_of(delivery)))
    assert (result.state, str(result.lifecycle), result.successful()) == ("SUCCESS", "succeeded", True)
    assert result.date_done is not None
    assert result.date_done.tzinfo is not None


def test_a_scheduled_and_an_unknown_task_can_be_told_apart(app: Any) -> None:
    later = app.tasks["kit.add"].apply_async((1, 2), countdown=1000)
    assert str(later.lifecycle) == "scheduled"
    assert str(AsyncResult("nobody", app=app).lifecycle) == "unknown"
    assert not later.exists()


def test_an_id_older_than_results_are_kept_has_expired(app: Any) -> None:
    old = IdSource(clock=lambda: time.time() - 2 * 86400)()
    result = AsyncResult(old, app=app)
    assert (result.state, str(result.lifecycle)) == ("EXPIRED", "expired")
    with pytest.raises(errors.TaskError, match="expired"):
        result.get(timeout=30)
    assert age_of(old, time.time()) == pytest.approx(2 * 86400, abs=5)
    assert age_of("not-an-id", 0) is None
    fresh = IdSource()()
    assert AsyncResult(fresh, app=app).state == "PENDING"


def test_a_terminal_state_never_changes(app: Any) -> None:
    store(app, "a", "SUCCESS", 1)
    store(app, "a", "FAILURE", ValueError("late"))
    store(app, "a", "STARTED", {})
    assert AsyncResult("a", app=app).get(timeout=5) == 1


def test_get_raises_or_returns_what_the_task_raised(app: Any, worker: MiniWorker) -> None:
    result = app.tasks["kit.fail"].delay()
    worker.drain()
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=5)
    assert isinstance(result.get(propagate=False), ValueError)
    assert result.failed()


def test_get_ends_in_time(app: Any) -> None:
    result = app.tasks["kit.add"].delay(1, 2)
    with pytest.raises(errors.TimeoutError, match="lifecycle"):
        result.get(timeout=0.05)
    with pytest.raises(errors.TimeoutError, match="lifecycle"):
        asyncio.run(result.aget(timeout=0.05))
    assert waiter_of(app.store).pending() == 0


def test_get_calls_back(app: Any) -> None:
    told: list[Any] = []
    store(app, "a", "PROGRESS", 1)
    threading.Timer(0.15, store, (app, "a", "SUCCESS", 2)).start()
    value = AsyncResult("a", app=app).get(
        timeout=20,
        interval=0.05,
        callback=lambda task_id, value: told.append((task_id, value)),
        on_message=lambda meta: told.append(meta["status"]),
        on_interval=lambda: told.append("tick"),
    )
    assert value == 2
    assert told[0] == "PROGRESS"
    assert "tick" in told
    assert told[-2:] == ["SUCCESS", ("a", 2)]


def test_a_failed_parent_is_raised_where_it_is_followed(app: Any) -> None:
    store(app, "p", "FAILURE", KeyError("first"))
    store(app, "c", "SUCCESS", 1)
    child = AsyncResult("c", app=app, parent=AsyncResult("p", app=app))
    with pytest.raises(KeyError):
        child.get(timeout=5)
    assert AsyncResult("c", app=app, parent=AsyncResult("p", app=app)).get(timeout=5, follow_parents=False) == 1


def test_all_parents_are_looked_at_in_one_call(app: Any) -> None:
    calls = []
    result = None
    for number in range(50):
        store(app, str(number), "SUCCESS", number)
        result = AsyncResult(str(number), app=app, parent=result)
    assert result is not None
    asked = result.backend.get
    result.backend.get = lambda ids, now: calls.append(len(ids)) or asked(ids, now)
    assert result.get(timeout=5) == 49
    assert 49 in calls
    assert len(calls) <= 2


def test_a_result_can_be_awaited(app: Any) -> None:
    async def main() -> list[int]:
        results: list[AsyncResult[int]] = [AsyncResult(name, app=app) for name in "abc"]
        waits = [asyncio.ensure_future(result.aget()) for result in results]
        await asyncio.sleep(0)
        for number, result in enumerate(results):
            store(app, result.id, "SUCCESS", number)
        return [*await asyncio.gather(*waits), await results[0]]

    assert asyncio.run(main()) == [0, 1, 2, 0]


def test_waiting_inside_a_task_is_refused_unless_allowed(app: Any, worker: MiniWorker) -> None:
    store(app, "done", "SUCCESS", 7)

    @app.task(name="kit.wait")
    def wait(how: str) -> Any:
        result = AsyncResult("done", app=app)
        if how == "allowed":
            with allow_join_result():
                return result.get(timeout=5)
        return result.get(timeout=5, disable_sync_subtasks=how != "flag")

    refused, allowed, flag = wait.delay("plain"), wait.delay("allowed"), wait.delay("flag")
    worker.drain()
    with pytest.raises(RuntimeError, match="allow_join_result"):
        refused.get(timeout=5)
    assert (allowed.get(timeout=5), flag.get(timeout=5)) == (7, 7)
    with denied_join_result(), pytest.raises(RuntimeError):
        AsyncResult("done", app=app).get(timeout=5)


def test_then_calls_back_for_success_and_for_failure(app: Any, wait_until: Callable[..., None]) -> None:
    told: list[Any] = []
    for name in "ab":
        AsyncResult(name, app=app).then(
            lambda result: told.append(("done", result.result)), lambda result: told.append(("error", result.id))
        )
    store(app, "a", "SUCCESS", 1)
    store(app, "b", "FAILURE", ValueError())
    wait_until(lambda: len(told) == 2)
    assert sorted(told) == [("done", 1), ("error", "b")]
    AsyncResult("a", app=app).then(told.append)
    wait_until(lambda: len(told) == 3)


def test_a_weak_callback_ends_with_its_result(app: Any) -> None:
    result: Any = AsyncResult("a", app=app)
    result.then(lambda result: None, weak=True)
    assert waiter_of(app.store).pending() == 1
    del result
    assert waiter_of(app.store).pending() == 0


def test_forget_deletes_the_result_and_those_of_its_parents(app: Any) -> None:
    store(app, "p", "SUCCESS", 1)
    store(app, "c", "SUCCESS", 2)
    child = AsyncResult("c", app=app, parent=AsyncResult("p", app=app))
    assert child.exists()
    child.forget()
    assert not child.exists()
    assert not AsyncResult("p", app=app).exists()


def test_revoke_ends_a_task_that_waits(app: Any, worker: MiniWorker) -> None:
    result = app.tasks["kit.add"].delay(1, 2)
    result.revoke()
    assert worker.drain() == []
    assert result.state == "REVOKED"
    with pytest.raises(errors.TaskRevokedError):
        result.get(timeout=5)
    with pytest.raises(errors.NotSupportedError):
        result.revoke(connection=object())


def test_an_extended_result_tells_about_the_call(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_extended=True)

    @app.task(name="kit.add")
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, y=2)
    MiniWorker(app).drain()
    assert (result.name, result.args, result.kwargs) == ("kit.add", [1], {"y": 2})
    assert (result.worker, result.retries, result.queue) == ("mini@host", 0, "celery")
    app.close()


def test_children_are_results(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.parent")
    def parent() -> None:
        app.tasks["kit.add"].delay(1, 2)

    result = parent.delay()
    worker.drain()
    (child,) = result.children
    assert child.get(timeout=5) == 3


def test_remote_tracebacks_need_their_package(app: Any) -> None:
    store(app, "a", "FAILURE", ValueError("x"), traceback="Traceback (most recent call last):\n")
    app.conf.task_remote_tracebacks = True
    try:
        import tblib  # noqa: F401
    except ImportError:
        with pytest.raises(errors.ImproperlyConfigured, match="tblib"):
            AsyncResult("a", app=app).get(timeout=5)
    else:
        with pytest.raises(ValueError, match="x"):
            AsyncResult("a", app=app).get(timeout=5)
