from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, job_of, make_app
from umbel.core import errors
from umbel.core.message import End


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)

    @app.task(name="kit.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="kit.fail")
    def fail(*args: Any) -> None:
        raise ValueError("no")

    yield app
    app.close()


def test_callbacks_get_the_result_first_and_are_children(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    result = add.apply_async((1, 2), link=[add.s(10), add.si(5, 5)])
    worker.drain()
    assert result.get(timeout=5) == 3
    assert sorted(child.get(timeout=5) for child in result.children) == [10, 13]


def test_a_run_that_is_repeated_gives_its_callbacks_the_same_ids(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    add.apply_async((1, 2), link=add.s(10))
    (delivery,) = worker.lease()
    first, second = (worker.runner.run(job_of(delivery)) for _ in range(2))
    assert [one.id for one in first.publish] == [one.id for one in second.publish]
    assert first.publish[0].id != delivery.id


def test_follow_ups_know_where_they_come_from(app: Any, worker: MiniWorker) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="kit.look")
    def look(self: Any, value: int) -> None:
        seen.append((self.request.root_id, self.request.parent_id))

    result = app.tasks["kit.add"].apply_async((1, 2), link=look.s())
    worker.drain()
    assert seen == [(result.id, result.id)]


def test_a_chain_of_protocol_2_goes_on_step_by_step(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    steps = [add.s(10), add.s(100)]
    ids = []
    for step in steps:
        step["options"]["task_id"] = f"step-{len(ids)}"
        ids.append(step["options"]["task_id"])
    # The wire keeps the steps in reverse.
    add.apply_async((1, 2), chain=[dict(step) for step in reversed(steps)])
    assert [report.kind for report in worker.drain()] == ["success"] * 3
    assert app.AsyncResult(ids[0]).get(timeout=5) == 13
    assert app.AsyncResult(ids[1]).get(timeout=5) == 113


def test_steps_that_nobody_has_looked_at_are_sent_on_as_they_came(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    later = {"task": "of.others", "args": [1], "options": {"task_id": "later"}, "strange": {"kept": True}}
    step = dict(add.s(10).set(task_id="step"))
    add.apply_async((1, 2), chain=[later, step])
    (delivery,) = worker.lease()
    (message,) = worker.runner.run(job_of(delivery)).publish
    args, kwargs, embed = json.loads(message.body)
    assert (message.id, args, kwargs) == ("step", [3, 10], {})
    assert embed == {"callbacks": None, "errbacks": None, "chain": [later], "chord": None}


@pytest.mark.parametrize("change", ["replaced", "in place", "gone"])
def test_a_task_may_change_the_steps_after_it(app: Any, worker: MiniWorker, change: str) -> None:
    add = app.tasks["kit.add"]

    @app.task(bind=True, name="kit.changes")
    def changes(self: Any) -> int:
        assert [step["task"] for step in self.request.chain] == ["kit.add", "kit.add"]
        if change == "replaced":
            self.request.chain = self.request.chain[1:]
        elif change == "in place":
            self.request.chain[0]["args"] = [1000]
        else:
            self.request.chain = None
        return 1

    steps = [dict(add.s(100).set(task_id="last")), dict(add.s(10).set(task_id="next"))]
    changes.apply_async((), chain=steps)
    worker.drain()
    states = [app.AsyncResult(name).state for name in ("next", "last")]
    if change == "in place":
        assert app.AsyncResult("last").get(timeout=5) == 1011
    else:
        assert states == (["SUCCESS", "PENDING"] if change == "replaced" else ["PENDING", "PENDING"])


def test_a_step_that_has_another_serializer_takes_the_steps_after_it_along(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    app.conf.accept_content = ["json", "pickle"]
    steps = [dict(add.s(100).set(task_id="last")), dict(add.s(10).set(task_id="next", serializer="pickle"))]
    add.apply_async((1, 2), chain=steps)
    worker = MiniWorker(app)
    worker.drain()
    assert app.AsyncResult("last").get(timeout=5) == 113


def test_a_failed_step_fails_the_steps_after_it(app: Any, worker: MiniWorker) -> None:
    add, fail = app.tasks["kit.add"], app.tasks["kit.fail"]
    later = add.s(1)
    later["options"]["task_id"] = "later"
    fail.apply_async((), chain=[dict(later)])
    assert len(worker.drain()) == 2
    with pytest.raises(ValueError, match="no"):
        app.AsyncResult("later").get(timeout=5)


def test_errbacks_with_one_argument_are_sent_with_the_id(app: Any, worker: MiniWorker) -> None:
    told: list[str] = []

    @app.task(name="kit.errback")
    def errback(task_id: str) -> None:
        told.append(task_id)

    result = app.tasks["kit.fail"].apply_async((), link_error=errback.s())
    reports = worker.drain()
    assert [report.kind for report in reports] == ["failure", "success"]
    assert told == [result.id]


def test_errbacks_with_more_arguments_are_called_with_the_details(app: Any, worker: MiniWorker) -> None:
    told: list[Any] = []

    @app.task(name="kit.errback")
    def errback(request: Any, exc: Exception, traceback: str) -> None:
        told.append((request.id, exc, "ValueError" in traceback))

    result = app.tasks["kit.fail"].apply_async((), link_error=errback.s())
    assert len(worker.drain()) == 1
    ((task_id, exc, has_traceback),) = told
    assert (task_id, exc.args, has_traceback) == (result.id, ("no",), True)


def test_arguments_that_an_errback_has_are_not_open_by_position_or_name(app: Any, worker: MiniWorker) -> None:
    told: list[Any] = []

    @app.task(name="kit.errback")
    def errback(task_id: str, place: str = "", note: str = "") -> None:
        told.append((task_id, place, note))

    links = [errback.s(place="a"), errback.s("b", note="c"), errback.s("d", "e")]
    result = app.tasks["kit.fail"].apply_async((), link_error=links)
    worker.drain()
    assert told == [(result.id, "a", ""), (result.id, "b", "c"), (result.id, "d", "e")]


def test_a_bound_errback_gets_the_id_unless_it_needs_more(app: Any, worker: MiniWorker) -> None:
    told: list[Any] = []

    @app.task(name="kit.noting", bind=True)
    def noting(self: Any, task_id: str, note: str = "", *more: Any) -> None:
        told.append((self.name, task_id, note, more))

    @app.task(name="kit.details", bind=True)
    def details(self: Any, request: Any, exc: Exception, traceback: str) -> None:
        told.append((self.name, request.id, str(exc)))

    result = app.tasks["kit.fail"].apply_async((), link_error=[details.s(), noting.s()])
    worker.drain()
    assert told == [("kit.details", result.id, "no"), ("kit.noting", result.id, "", ())]


def test_an_errback_that_fails_does_not_hide_the_failure(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.errback")
    def errback(request: Any, exc: Exception, traceback: str) -> None:
        raise SystemExit(1)

    result = app.tasks["kit.fail"].apply_async((), link_error=errback.s())
    worker.drain()
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=5)


def test_errbacks_hear_of_a_lost_worker(app: Any, worker: MiniWorker) -> None:
    told: list[str] = []

    @app.task(name="kit.errback")
    def errback(task_id: str) -> None:
        told.append(task_id)

    result = app.tasks["kit.add"].apply_async((1,), link_error=errback.s())
    worker.step(verdict="lost")
    worker.drain()
    assert told == [result.id]


def test_ignored_results_are_not_stored_but_errors_can_be(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.quiet", ignore_result=True)
    def quiet() -> int:
        return 1

    @app.task(name="kit.loud", ignore_result=True, store_errors_even_if_ignored=True)
    def loud() -> None:
        raise ValueError("stored")

    kept, dropped, failed = quiet.apply_async(ignore_result=False), quiet.delay(), loud.delay()
    reports = worker.drain()
    assert [report.kind for report in reports] == ["success", "success", "failure"]
    assert kept.get(timeout=5) == 1
    assert dropped.ignored
    assert dropped.get() is None
    assert not dropped.exists()
    assert app.AsyncResult(failed.id).state == "FAILURE"


def test_a_value_that_is_ignored_need_not_be_written(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.odd", ignore_result=True)
    def odd() -> object:
        return object()

    odd.delay()
    (report,) = worker.drain()
    assert report.kind == "success"


def test_a_rejected_late_failure_is_a_dead_letter(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.late", acks_late=True, acks_on_failure=False)
    def late() -> None:
        raise ValueError("no")

    result = late.delay()
    (report,) = worker.drain()
    assert (report.end, report.reason) == (End.DEAD, "failure: ValueError")
    assert result.failed()
    (letter,) = app.dead.browse()
    assert letter.message.id == result.id


def test_a_disabled_result_backend_stores_nothing(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_backend="disabled")

    @app.task(name="kit.one")
    def one() -> int:
        return 1

    result = one.delay()
    (report,) = MiniWorker(app).drain()
    assert (report.kind, report.record) == ("success", None)
    with pytest.raises(errors.ImproperlyConfigured, match="result_backend"):
        app.AsyncResult(result.id).get(timeout=1)
    app.close()
