from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, job_of, make_app
from umbel.app import signals
from umbel.app.async_result import AsyncResult
from umbel.app.execution import Runner
from umbel.app.request import current_task
from umbel.core import errors
from umbel.core.message import End
from umbel.engine.clock import SYSTEM_CLOCK


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)
    yield app
    app.close()


def test_a_value_comes_back_from_the_store(app: Any, worker: MiniWorker) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(2, 3)
    (report,) = worker.drain()
    assert report.kind == "success"
    assert result.get(timeout=5) == 5
    assert result.state == "SUCCESS"
    assert result.date_done is not None


def test_the_log_line_tells_neither_arguments_nor_value(
    app: Any, worker: MiniWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "celery.worker")

    @app.task(name="kit.secret")
    def secret(word: str) -> str:
        return word * 2

    result = secret.delay("canary")
    (report,) = worker.drain()
    assert report.log.startswith(f"Task kit.secret[{result.id}] succeeded in ")
    assert "canary" not in report.log


def test_no_line_is_made_that_nobody_reads(app: Any, worker: MiniWorker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "celery.worker")
    app.task(name="kit.plain")(lambda: None).delay()
    (report,) = worker.drain()
    assert (report.kind, report.log) == ("success", "")


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (ValueError("no"), ValueError),
        (KeyError("k"), KeyError),
        (MemoryError("much"), MemoryError),
        (SystemExit(3), errors.RemoteError),
        (KeyboardInterrupt(), errors.RemoteError),
        (GeneratorExit(), errors.RemoteError),
        (asyncio.CancelledError(), errors.RemoteError),
        (errors.SoftTimeLimitExceeded(5.0), errors.SoftTimeLimitExceeded),
    ],
)
def test_whatever_a_task_raises_is_its_failure(
    app: Any, worker: MiniWorker, raised: BaseException, caught: type[Exception]
) -> None:
    @app.task
    def fail() -> None:
        raise raised

    result = fail.delay()
    (report,) = worker.drain()
    assert report.kind == "failure"
    with pytest.raises(caught):
        result.get(timeout=5)
    assert "Traceback" in (result.traceback or "")
    assert "running.py" not in (result.traceback or "")


class Nasty(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")


def test_an_exception_that_cannot_be_shown_is_still_a_failure(app: Any, worker: MiniWorker) -> None:
    @app.task
    def fail() -> None:
        raise Nasty(object())

    result = fail.delay()
    (report,) = worker.drain()
    assert report.kind == "failure"
    assert result.state == "FAILURE"
    assert "unprintable" in report.log


def test_a_value_that_cannot_be_written_is_a_failure_with_the_reason(app: Any, worker: MiniWorker) -> None:
    heard: list[BaseException] = []

    @app.task(on_failure=lambda self, exc, *rest: heard.append(exc))
    def give() -> object:
        return object()

    result = give.delay()
    worker.drain()
    with pytest.raises(errors.EncodeError, match="no json form"):
        result.get(timeout=5)
    assert isinstance(heard[0], errors.EncodeError)


def test_a_value_beyond_the_limit_is_a_failure_with_the_reason(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_max_bytes=2000)
    worker = MiniWorker(app)

    @app.task
    def give(size: int) -> str:
        return "x" * size

    small, large = give.delay(1000), give.delay(3000)
    worker.drain()
    assert len(small.get(timeout=5)) == 1000
    with pytest.raises(errors.BackendStoreError, match="result_max_bytes"):
        large.get(timeout=5)
    app.close()


def test_an_async_task_runs_in_both_ways(app: Any, worker: MiniWorker) -> None:
    @app.task
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    assert worker.runner.is_async(add.name)
    first, second = add.delay(1, 2), add.delay(3, 4)
    worker.step()
    (delivery,) = worker.lease()
    worker.commit(delivery, asyncio.run(worker.runner.arun(job_of(delivery))))
    assert (first.get(timeout=5), second.get(timeout=5)) == (3, 7)


def test_concurrent_async_tasks_see_their_own_requests(app: Any, worker: MiniWorker) -> None:
    seen: dict[str, str] = {}

    @app.task(bind=True)
    async def look(self: Any, name: str) -> None:
        await asyncio.sleep(0.001)
        seen[name] = self.request.id
        assert current_task() is self

    results = {name: look.delay(name) for name in "abc"}

    async def together() -> None:
        deliveries = worker.lease()
        reports = await asyncio.gather(*(worker.runner.arun(job_of(one)) for one in deliveries))
        for delivery, report in zip(deliveries, reports, strict=True):
            worker.commit(delivery, report)

    asyncio.run(together())
    assert seen == {name: result.id for name, result in results.items()}


def test_a_soft_time_limit_is_raised_inside_an_async_task(app: Any, worker: MiniWorker) -> None:
    cleaned: list[bool] = []

    @app.task
    async def wait() -> str:
        try:
            await asyncio.Event().wait()
        except errors.SoftTimeLimitExceeded:
            cleaned.append(True)
            return "tidy"
        return "never"

    result = wait.delay()
    (delivery,) = worker.lease()

    async def limited() -> Any:
        running = asyncio.create_task(worker.runner.arun(job_of(delivery)))
        await asyncio.sleep(0.01)
        running.cancel(errors.SoftTimeLimitExceeded(0.01))  # type: ignore[arg-type]
        return await running

    worker.commit(delivery, asyncio.run(limited()))
    assert cleaned == [True]
    assert result.get(timeout=5) == "tidy"


def test_a_hard_limit_raised_by_a_pool_counts_as_a_timeout(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.slow", acks_late=True, acks_on_timeout=False, autoretry_for=(Exception,))
    def slow() -> None:
        raise errors.TimeLimitExceeded(3.0)

    slow.delay()
    report = worker.step()
    assert report is not None
    assert (report.kind, report.end) == ("timeout", End.REQUEUE)


def test_a_plain_cancellation_goes_through(app: Any, worker: MiniWorker) -> None:
    @app.task
    async def wait() -> None:
        await asyncio.Event().wait()

    wait.delay()
    (delivery,) = worker.lease()

    async def cancelled() -> None:
        running = asyncio.create_task(worker.runner.arun(job_of(delivery)))
        await asyncio.sleep(0.01)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_the_guard_is_up_only_while_the_task_runs(app: Any, worker: MiniWorker) -> None:
    seen: list[bool] = []

    @app.task(after_return=lambda *rest: seen.append(worker.runner.in_task))
    def look() -> None:
        seen.append(worker.runner.in_task)

    look.delay()
    worker.drain()
    assert seen == [True, False]


def test_the_request_tells_what_the_message_says(app: Any, worker: MiniWorker) -> None:
    seen: dict[str, Any] = {}

    @app.task(bind=True)
    def look(self: Any, *args: Any, **kwargs: Any) -> None:
        request = self.request
        names = "id root_id parent_id args kwargs retries hostname called_directly is_eager shade group".split()
        seen.update({name: getattr(request, name) for name in names})
        seen.update(headers=request.headers, info=request.delivery_info, limits=request.timelimit)
        seen.update(stamps=request.stamps, stamped=request.stamped_headers)
        seen.update(soft=request.soft_time_limit, unknown=request.get("nothing", 7))
        with pytest.raises(AttributeError, match="nothing"):
            _ = request.nothing

    result = look.apply_async((1,), {"a": 2}, headers={"shade": "dark", "get": "no"}, soft_time_limit=9, time_limit=10)
    (report,) = worker.drain()
    assert report.kind == "success", report.log
    assert seen["id"] == seen["root_id"] == result.id
    assert (seen["args"], seen["kwargs"], seen["retries"]) == ([1], {"a": 2}, 0)
    assert seen["headers"] == {"shade": "dark", "get": "no"}
    assert seen["shade"] == "dark"
    assert seen["hostname"] == "mini@host"
    assert (seen["called_directly"], seen["is_eager"]) == (False, False)
    assert seen["info"] == {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False}
    assert (list(seen["limits"]), seen["soft"], seen["unknown"]) == ([10, 9], 9, 7)
    assert (seen["stamps"], seen["stamped"]) == ({}, None)


def test_handlers_and_signals_hear_of_a_success(app: Any, worker: MiniWorker) -> None:
    heard: list[Any] = []

    class Loud(app.Task):  # type: ignore[name-defined,misc]
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            heard.append("before_start")

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            heard.append(("on_success", retval))
            raise RuntimeError("a handler that fails changes nothing")

        def after_return(self, status: str, retval: Any, *rest: Any) -> None:
            heard.append(("after_return", status, retval))

    def prerun(**named: Any) -> None:
        heard.append("prerun")

    def postrun(**named: Any) -> None:
        heard.append(("postrun", named["state"], named["retval"]))

    def success(**named: Any) -> None:
        heard.append(("success", named["result"]))

    signals.task_prerun.connect(prerun)
    signals.task_postrun.connect(postrun)
    signals.task_success.connect(success)
    try:

        @app.task(base=Loud)
        def work() -> int:
            heard.append("run")
            return 1

        result = work.delay()
        worker.drain()
    finally:
        signals.task_prerun.disconnect(prerun)
        signals.task_postrun.disconnect(postrun)
        signals.task_success.disconnect(success)
    assert result.get(timeout=5) == 1
    assert heard == [
        "prerun",
        "before_start",
        "run",
        ("on_success", 1),
        ("success", 1),
        ("after_return", "SUCCESS", 1),
        ("postrun", "SUCCESS", 1),
    ]


def test_handlers_and_signals_hear_of_a_failure(app: Any, worker: MiniWorker) -> None:
    heard: list[Any] = []

    class Loud(app.Task):  # type: ignore[name-defined,misc]
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            heard.append(("on_failure", repr(exc), args, "ValueError" in str(einfo)))

        def after_return(self, status: str, retval: Any, *rest: Any) -> None:
            heard.append(("after_return", status))

    def failed(**named: Any) -> None:
        heard.append(("failure", named["exception"].args, named["task_id"]))

    signals.task_failure.connect(failed)
    try:

        @app.task(base=Loud)
        def work(x: int) -> None:
            raise ValueError(x)

        result = work.delay(4)
        worker.drain()
    finally:
        signals.task_failure.disconnect(failed)
    assert heard == [
        ("on_failure", "ValueError(4)", (4,), True),
        ("failure", (4,), result.id),
        ("after_return", "FAILURE"),
    ]


def test_an_async_handler_is_refused_clearly(app: Any, worker: MiniWorker) -> None:
    async def later(*rest: Any) -> None: ...

    @app.task(on_success=later)
    def work() -> None: ...

    result = work.delay()
    (report,) = worker.drain()
    assert report.end == End.DEAD
    with pytest.raises(errors.ImproperlyConfigured, match="plain function"):
        result.get(timeout=5)


def test_an_overridden_call_is_honoured(app: Any, worker: MiniWorker) -> None:
    seen: list[str] = []

    class Wrapped(app.Task):  # type: ignore[name-defined,misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.request.id)
            return super().__call__(*args, **kwargs) + 1

    @app.task(base=Wrapped)
    def work() -> int:
        return 1

    result = work.delay()
    worker.drain()
    assert result.get(timeout=5) == 2
    assert seen == [result.id]


def test_started_is_stored_where_it_is_tracked(app: Any, worker: MiniWorker) -> None:
    seen: list[Any] = []

    @app.task(bind=True, track_started=True)
    def work(self: Any) -> None:
        result = AsyncResult(self.request.id, app=app)
        seen.append((result.state, result.info["hostname"], str(result.lifecycle)))

    work.delay()
    (report,) = worker.drain()
    assert report.kind == "success", report.log
    assert seen == [("STARTED", "mini@host", "started")]


def test_expected_exceptions_are_failures_that_are_logged_shortly(app: Any, worker: MiniWorker) -> None:
    @app.task(throws=(KeyError,))
    def work() -> None:
        raise KeyError("x")

    result = work.delay()
    (report,) = worker.drain()
    assert "raised expected: KeyError" in report.log
    assert report.expected
    assert "Traceback" not in report.log
    assert result.failed()


def test_ignore_stores_nothing_and_ends_the_message(app: Any, worker: MiniWorker) -> None:
    @app.task
    def work() -> None:
        raise errors.Ignore

    result = work.delay()
    (report,) = worker.drain()
    assert (report.kind, report.end, report.record) == ("ignore", End.DONE, None)
    assert not result.exists()


def test_reject_ends_as_a_failure_and_requeue_goes_back(app: Any, worker: MiniWorker) -> None:
    turns: list[int] = []

    @app.task
    def work(requeue: bool) -> str:
        turns.append(1)
        if requeue and len(turns) > 1:
            return "later"
        raise errors.Reject("no", requeue=requeue)

    again = work.delay(True)
    assert [report.kind for report in worker.drain()] == ["requeue", "success"]
    assert again.get(timeout=5) == "later"
    refused = work.delay(False)
    worker.drain()
    assert refused.state == "FAILURE"


def test_an_unknown_task_becomes_a_dead_letter_with_a_failed_result(app: Any, worker: MiniWorker) -> None:
    result = app.send_task("kit.nobody")
    (report,) = worker.drain()
    assert report.end == End.DEAD
    with pytest.raises(errors.NotRegistered, match=r"kit\.nobody"):
        result.get(timeout=5)


def test_a_body_that_cannot_be_read_is_a_dead_letter_with_the_reason(app: Any, worker: MiniWorker) -> None:
    @app.task
    def work() -> None: ...

    work.delay()
    (delivery,) = worker.lease()
    delivery.body = b"{not json"
    report = worker.runner.run(job_of(delivery))
    assert report.end == End.DEAD
    assert "body cannot be read" in report.reason
    delivery.head = b"\xff"
    assert worker.runner.run(job_of(delivery)).end == End.DEAD


@pytest.mark.parametrize(("body", "encoding"), [(b"W1s0Ml0sIHt9LCB7fV0=", "base64"), (b'"[[42], {}, {}]"', "utf-8")])
def test_a_body_is_read_as_it_stood_in_its_envelope(app: Any, worker: MiniWorker, body: bytes, encoding: str) -> None:
    @app.task
    def work(x: int) -> int:
        return x

    result = work.delay(1)
    (delivery,) = worker.lease()
    delivery.body, delivery.body_encoding = body, encoding
    worker.commit(delivery, worker.runner.run(job_of(delivery, body_encoding=encoding)))
    assert result.get(timeout=5) == 42


@pytest.mark.parametrize("encoding", ["base64", "utf-8"])
def test_a_body_that_cannot_be_taken_out_of_its_envelope_is_a_dead_letter(
    app: Any, worker: MiniWorker, encoding: str
) -> None:
    @app.task
    def work() -> None: ...

    result = work.delay()
    (delivery,) = worker.lease()
    delivery.body = b"!!!"
    report = worker.runner.run(job_of(delivery, body_encoding=encoding))
    assert (report.end, "the body is not" in report.reason) == (End.DEAD, True)
    lost = worker.runner.conclude(job_of(delivery, body_encoding=encoding, verdict="lost", verdict_text="gone"))
    worker.commit(delivery, lost)
    with pytest.raises(errors.WorkerLostError, match="gone"):
        result.get(timeout=5)


def test_arguments_that_do_not_fit_are_a_failure(app: Any, worker: MiniWorker) -> None:
    @app.task(typing=False)
    def work(x: int) -> int:
        return x

    result = work.apply_async((1, 2))
    worker.drain()
    with pytest.raises(TypeError):
        result.get(timeout=5)


VERDICTS = [
    ("lost", "FAILURE", errors.WorkerLostError),
    ("timeout", "FAILURE", errors.TimeLimitExceeded),
    ("revoked", "REVOKED", errors.TaskRevokedError),
    ("expired", "REVOKED", errors.TaskRevokedError),
    ("terminated", "REVOKED", errors.TaskRevokedError),
]


@pytest.mark.parametrize(("verdict", "state", "error"), VERDICTS)
def test_a_verdict_ends_a_job_without_running_it(
    app: Any, worker: MiniWorker, verdict: str, state: str, error: type[Exception]
) -> None:
    ran: list[int] = []
    heard: list[BaseException] = []

    @app.task(on_failure=lambda self, exc, *rest: heard.append(exc))
    def work() -> None:
        ran.append(1)

    result = work.delay()
    report = worker.step(verdict=verdict, verdict_text="3.5" if verdict == "timeout" else "")
    assert report is not None
    assert result.state == state
    with pytest.raises(error):
        result.get(timeout=5)
    assert ran == []
    assert len(heard) == (1 if state == "FAILURE" else 0)


def test_a_late_lost_task_runs_again_until_the_crash_cap(app: Any, worker: MiniWorker) -> None:
    @app.task(acks_late=True)
    def work() -> None: ...

    result = work.delay()
    (delivery,) = worker.lease()
    first = worker.runner.run(job_of(delivery, verdict="lost"))
    assert (first.end, first.record) == (End.CRASHED, None)
    delivery.crashes = 2
    last = worker.runner.run(job_of(delivery, verdict="lost", verdict_text="signal 9"))
    assert last.end == End.DEAD
    worker.commit(delivery, last)
    with pytest.raises(errors.WorkerLostError, match="signal 9"):
        result.get(timeout=5)


def test_a_lost_task_is_sent_again_where_it_asks_for_that(app: Any, worker: MiniWorker) -> None:
    @app.task(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)
    def work() -> str:
        return "done"

    result = work.delay()
    report = worker.step(verdict="lost")
    assert report is not None
    assert (report.kind, len(report.publish)) == ("retry", 1)
    worker.drain()
    assert result.get(timeout=5) == "done"


def test_a_fault_of_ours_ends_only_its_message(app: Any, worker: MiniWorker) -> None:
    heard: list[Any] = []

    def internal(**named: Any) -> None:
        heard.append(named["exception"])

    class Odd(app.Task):  # type: ignore[name-defined,misc]
        throws = 5  # no class: the question whether it was expected fails

        def run(self) -> None:
            raise ValueError

    app.register_task(Odd())
    result = app.tasks[Odd.name or next(n for n in app.tasks if n.endswith("Odd"))].delay()
    signals.task_internal_error.connect(internal)
    try:
        (report,) = worker.drain()
    finally:
        signals.task_internal_error.disconnect(internal)
    assert report.end == End.DEAD
    assert report.reason.startswith("internal error")
    assert len(heard) == 1
    assert result.failed()


def test_redelivery_shows_in_the_request(app: Any) -> None:
    @app.task(bind=True)
    def look(self: Any) -> bool:
        return bool(self.request.delivery_info["redelivered"])

    worker = MiniWorker(app)
    look.delay()
    (delivery,) = worker.lease()
    job = job_of(delivery)
    job.token = 2
    report = Runner(app, "w@h", clock=SYSTEM_CLOCK, rng=random.Random(1)).run(job)
    assert report.record is not None
    assert b'"result":true' in report.record.meta
