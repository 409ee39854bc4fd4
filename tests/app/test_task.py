"""A task's own methods: direct calls, requests, states, retries, pydantic."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from umbel import Umbel
from umbel.app import request as requests
from umbel.app.task import Task
from umbel.core.errors import NotSupportedError, Retry


class Order(BaseModel):
    number: int
    note: str = ""


def test_a_request_class_of_ones_own_is_refused_where_the_task_is_made(app: Umbel) -> None:
    class Own(Task[..., Any]):
        Request = "program:Request"

        def run(self) -> None: ...

    for make in (
        lambda: app.task(name="by_option", Request="program:Request")(lambda: None).name,
        lambda: app.task(name="by_base", base=Own)(lambda: None).name,
        lambda: app.register_task(Own),
    ):
        with pytest.raises(NotSupportedError, match=r"\(Request\).*on_failure"):
            make()


def test_a_direct_call_has_a_request_that_says_so(app: Umbel) -> None:
    @app.task(bind=True)
    def look(self: Task[..., Any], x: int) -> tuple[bool, Any]:
        return self.request.called_directly, app.current_task.name

    assert look(1) == (True, look.name)
    assert app.current_task is None
    assert look.request.id is None


def test_apply_runs_the_task_here_and_gives_its_result(app: Umbel) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("x")

    result = fail.apply()
    assert (result.state, type(result.result)) == ("FAILURE", KeyError)
    with pytest.raises(KeyError):
        fail.apply(throw=True)


def test_retry_called_directly_raises_what_is_at_hand(app: Umbel) -> None:
    @app.task(bind=True)
    def again(self: Task[..., Any]) -> None:
        raise self.retry()

    with pytest.raises(Retry):
        again()


def test_retry_inside_an_eager_run_runs_again(app: Umbel) -> None:
    @app.task(bind=True, max_retries=3)
    def third(self: Task[..., Any]) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    assert third.apply().get() == 2


def test_update_state_stores_a_custom_state(app: Umbel) -> None:
    @app.task(name="job")
    def job() -> None: ...

    job.update_state("an-id", "PROGRESS", {"done": 3})
    result = job.AsyncResult("an-id")
    assert (result.state, result.info) == ("PROGRESS", {"done": 3})
    with pytest.raises(ValueError, match="task_id"):
        job.update_state(state="PROGRESS")


def test_a_pushed_request_is_the_running_one(app: Umbel) -> None:
    @app.task(bind=True)
    def job(self: Task[..., Any]) -> None: ...

    job.push_request(id="x", retries=2)
    assert (job.request.id, job.request.retries) == ("x", 2)
    job.pop_request()
    assert job.request.id is None


def test_an_overridden_call_goes_on_to_the_body_with_the_same_request(app: Umbel) -> None:
    class Wrapped(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return [super().__call__(*args, **kwargs)]

    @app.task(bind=True, base=Wrapped)
    def whoami(self: Task[..., Any]) -> Any:
        return self.request.id

    assert whoami.apply(task_id="t1").get() == ["t1"]


def test_models_are_sent_as_plain_values_and_validated_before_the_run(app: Umbel) -> None:
    @app.task(name="order", pydantic=True)
    def place(order: Order, twice: Order | None = None) -> Order:
        return Order(number=order.number + 1, note=type(order).__name__)

    assert place.apply(({"number": 1},)).get() == {"number": 2, "note": "Order"}
    app.conf.task_always_eager = True
    assert place.delay(Order(number=5)).get() == {"number": 6, "note": "Order"}
    assert place.delay({"number": "no number"}).state == "FAILURE"


def test_a_task_may_choose_the_name_that_is_shown(app: Umbel) -> None:
    class Shown(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
            return f"shown {args[0]}"

    @app.task(base=Shown)
    def job(x: int) -> None: ...

    from umbel.app.signals import before_task_publish

    seen: list[Any] = []

    def before(headers: dict[str, Any], **_: Any) -> None:
        seen.append(headers["shadow"])

    before_task_publish.connect(before)
    try:
        job.delay(7)
    finally:
        before_task_publish.disconnect(before)
    assert seen == ["shown 7"]


def test_an_async_task_called_here_gives_its_coroutine(app: Umbel) -> None:
    @app.task
    async def wait(x: int) -> int:
        return x + 1

    assert asyncio.run(wait(1)) == 2
    assert wait.apply((1,)).get() == 2


def test_what_a_running_task_sends_is_its_child(app: Umbel) -> None:
    @app.task(name="inner")
    def inner() -> None: ...

    @app.task(name="outer")
    def outer() -> str:
        return str(inner.delay().id)

    result = outer.apply()
    assert [child.id for child in result._trail] == [result.get()]
    assert requests.top() is None


@pytest.mark.parametrize("name", ["send_event"])
def test_what_comes_later_says_so(app: Umbel, name: str) -> None:
    task = app.task(name="x")(lambda: None)
    with pytest.raises(NotSupportedError):
        getattr(task, name)("y")
