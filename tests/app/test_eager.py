from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import make_app
from umbel.app.result import EagerResult
from umbel.core import errors


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)
    yield app
    app.close()


def test_apply_runs_here_and_knows_it(app: Any) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="kit.look")
    def look(self: Any, x: int) -> int:
        seen.append((self.request.is_eager, self.request.called_directly, self.request.id))
        return x

    result = look.apply((4,), task_id="mine")
    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.ready(), result.successful()) == (4, "SUCCESS", True, True)
    assert seen == [(True, False, "mine")]
    assert str(result.lifecycle) == "succeeded"


def test_a_failure_is_in_the_result_or_raised(app: Any) -> None:
    @app.task(name="kit.fail")
    def fail() -> None:
        raise ValueError("no")

    result = fail.apply()
    assert result.failed()
    assert "ValueError: no" in (result.traceback or "")
    with pytest.raises(ValueError, match="no"):
        result.get()
    assert isinstance(result.get(propagate=False), ValueError)
    with pytest.raises(ValueError, match="no"):
        fail.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        fail.apply()


def test_retries_run_in_place(app: Any) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="kit.again", max_retries=500, default_retry_delay=1000)
    def again(self: Any, x: int) -> int:
        seen.append((x, self.request.retries))
        if x < 300:
            raise self.retry(args=(x + 1,), exc=ValueError())
        return x

    assert again.apply((0,)).get() == 300
    assert seen[-1] == (300, 300)


def test_used_up_retries_are_a_failure(app: Any) -> None:
    @app.task(name="kit.auto", autoretry_for=(ValueError,), max_retries=2)
    def auto() -> None:
        raise ValueError("again")

    result = auto.apply()
    assert result.state == "FAILURE"
    assert isinstance(result.result, ValueError)


def test_callbacks_and_errbacks_run_in_place(app: Any) -> None:
    told: list[Any] = []

    @app.task(name="kit.add")
    def add(x: int, y: int) -> int:
        told.append(x + y)
        return x + y

    @app.task(name="kit.fail")
    def fail() -> None:
        raise ValueError("no")

    @app.task(name="kit.details")
    def details(request: Any, exc: Any, traceback: Any) -> None:
        told.append(repr(exc))

    @app.task(name="kit.old")
    def old(task_id: str) -> None:
        told.append(task_id)

    result = add.apply((1, 2), link=add.s(10))
    assert told == [3, 13]
    assert [child.get() for child in result.children] == [13]
    fail.apply(link_error=[details.s(), old.s()], task_id="mine")
    assert told[2:] == ["ValueError('no')", "mine"]


def test_system_exit_reaches_the_caller(app: Any) -> None:
    @app.task(name="kit.exit")
    def leave() -> None:
        raise SystemExit(4)

    with pytest.raises(SystemExit):
        leave.apply()


def test_an_async_task_runs_here_too(app: Any) -> None:
    @app.task(name="kit.async")
    async def later() -> int:
        return 5

    assert later.apply().get() == 5


async def _inside_a_loop(task: Any) -> int:
    value: int = task.apply().get()
    return value


def test_an_async_task_runs_even_where_a_loop_runs(app: Any) -> None:
    import asyncio

    @app.task(name="kit.async")
    async def later() -> int:
        await asyncio.sleep(0)
        return 6

    assert asyncio.run(_inside_a_loop(later)) == 6


def test_always_eager_needs_no_worker_and_can_store(app: Any) -> None:
    app.conf.task_always_eager = True
    app.conf.task_store_eager_result = True

    @app.task(name="kit.one")
    def one() -> int:
        return 1

    result = one.delay()
    assert result.get() == 1
    assert app.AsyncResult(result.id).state == "SUCCESS"


def test_ignore_reject_and_revoke(app: Any) -> None:
    @app.task(name="kit.end")
    def end(how: str) -> None:
        raise errors.Ignore if how == "ignore" else errors.Reject("no")

    assert end.apply(("ignore",)).state == "IGNORED"
    assert end.apply(("reject",)).state == "REJECTED"
    result = end.apply(("ignore",))
    result.revoke()
    assert result.state == "REVOKED"
    with pytest.raises(errors.TaskRevokedError):
        result.get()


def test_the_headers_of_an_eager_call_are_attributes(app: Any) -> None:
    @app.task(bind=True, name="kit.look")
    def look(self: Any) -> Any:
        return [self.request.shade, self.request.headers]

    assert look.apply(headers={"shade": "dark"}).get() == ["dark", {"shade": "dark"}]
