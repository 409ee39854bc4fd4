from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.app.execution_kit import MiniWorker, make_app
from umbel.app import signals
from umbel.app.retry import backoff
from umbel.core import errors


@pytest.fixture
def app(tmp_path: Path) -> Any:
    app = make_app(tmp_path)
    yield app
    app.close()


@given(st.integers(0, 500), st.floats(1, 100), st.floats(1, 10_000), st.booleans(), st.integers())
def test_backoff_stays_within_its_bounds(retries: int, factor: float, maximum: float, jitter: bool, seed: int) -> None:
    rng = random.Random(seed)
    pause = backoff(retries, factor=factor, maximum=maximum, jitter=jitter, rng=rng)
    full = int(min(maximum, factor * 2 ** min(retries, 64)))
    assert isinstance(pause, int)
    assert 0 <= pause <= full
    assert jitter or pause == full


def test_a_retry_runs_again_with_the_same_id_route_and_headers(app: Any, worker: MiniWorker) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="kit.again")
    def again(self: Any, x: int) -> int:
        request = self.request
        seen.append((request.id, request.retries, request.headers, list(request.timelimit), request.expires))
        if request.retries < 2:
            raise self.retry(exc=ValueError("not yet"), countdown=30)
        return x

    expires = datetime.now(UTC) + timedelta(hours=1)
    result = again.apply_async(
        (7,), headers={"shade": "dark"}, priority=3, expires=expires, time_limit=20, soft_time_limit=10
    )
    assert [report.kind for report in worker.drain()] == ["retry"]
    assert result.state == "RETRY"
    assert isinstance(result.result, ValueError)
    assert str(result.lifecycle) == "retrying"
    worker.forward(31)
    first, second = worker.drain()  # the third attempt is due as well by then
    assert (first.kind, second.kind) == ("retry", "success")
    assert (first.publish[0].generation, first.publish[0].priority) == (2, 3)
    assert result.get(timeout=5) == 7
    assert len(set(map(str, [(one[0], *one[2:]) for one in seen]))) == 1
    assert [one[1] for one in seen] == [0, 1, 2]


def test_the_default_pause_is_that_of_the_task(app: Any, worker: MiniWorker) -> None:
    @app.task(bind=True, name="kit.again", default_retry_delay=100)
    def again(self: Any) -> None:
        self.retry()

    again.delay()
    (report,) = worker.drain()
    assert 99 < report.publish[0].due - worker.clock.now() <= 100


def test_retries_that_are_used_up_raise_the_reason(app: Any, worker: MiniWorker) -> None:
    @app.task(bind=True, name="kit.reason", max_retries=1)
    def reason(self: Any) -> None:
        try:
            raise KeyError("why")
        except KeyError as exc:
            raise self.retry(exc=exc, countdown=0)  # noqa: B904 - what users write

    @app.task(bind=True, name="kit.plain", max_retries=1)
    def plain(self: Any, x: int) -> None:
        self.retry(countdown=0)

    first, second = reason.delay(), plain.delay(4)
    worker.drain()
    with pytest.raises(KeyError, match="why"):
        first.get(timeout=5)
    with pytest.raises(errors.MaxRetriesExceededError, match=r"kit\.plain"):
        second.get(timeout=5)


def test_max_retries_none_never_ends(app: Any, worker: MiniWorker) -> None:
    @app.task(bind=True, name="kit.ever", max_retries=None)
    def ever(self: Any) -> int:
        if self.request.retries < 12:
            self.retry(countdown=0)
        return int(self.request.retries)

    result = ever.delay()
    worker.drain()
    assert result.get(timeout=5) == 12


def test_new_arguments_take_the_place_of_old_ones(app: Any, worker: MiniWorker) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="kit.new")
    def new(self: Any, a: int, b: int = 0, c: int = 0) -> None:
        seen.append((a, b, c))
        if self.request.retries == 0:
            self.retry(args=(5, 6), countdown=0)
        if self.request.retries == 1:
            self.retry(kwargs={"a": 8}, countdown=0)

    new.delay(1, b=2, c=3)
    worker.drain()
    assert seen == [(1, 2, 3), (5, 6, 3), (8, 6, 0)]


def test_automatic_retries_wait_longer_each_time(app: Any, worker: MiniWorker) -> None:
    pauses: list[int] = []

    @app.task(
        name="kit.auto",
        autoretry_for=(ValueError,),
        retry_backoff=2,
        retry_backoff_max=10,
        retry_jitter=False,
        retry_kwargs={"max_retries": 4},
    )
    def auto() -> None:
        raise ValueError("again")

    result = auto.delay()
    for _ in range(4):
        (report,) = worker.drain()
        pauses.append(round(report.publish[0].due - worker.clock.now()))
        worker.forward(pauses[-1] + 1)
    worker.drain()
    assert pauses[0] == 2
    with pytest.raises(ValueError, match="again"):
        result.get(timeout=5)


def test_exclusions_and_plain_errors_are_not_retried(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.some", autoretry_for=(Exception,), dont_autoretry_for=(KeyError,))
    def some(error: str) -> None:
        raise {"key": KeyError, "ignore": errors.Ignore, "value": ValueError}[error]

    for error, kind in (("key", "failure"), ("ignore", "ignore"), ("value", "retry")):
        some.delay(error)
        (report,) = worker.drain()
        assert report.kind == kind


def test_a_retry_raised_by_hand_is_followed_too(app: Any, worker: MiniWorker) -> None:
    @app.task(bind=True, name="kit.hand")
    def hand(self: Any) -> str:
        if self.request.retries == 0:
            raise errors.Retry("later", when=0)
        return "done"

    result = hand.delay()
    worker.drain()
    assert result.get(timeout=5) == "done"


def test_a_retry_that_cannot_be_sent_is_a_failure(app: Any, worker: MiniWorker) -> None:
    @app.task(bind=True, name="kit.bad")
    def bad(self: Any, x: Any) -> None:
        self.retry(args=(object(),), countdown=0)

    result = bad.delay(1)
    (report,) = worker.drain()
    assert report.kind == "reject"
    assert result.failed()


def test_a_direct_call_raises_what_is_at_hand(app: Any) -> None:
    @app.task(bind=True, name="kit.direct")
    def direct(self: Any, how: str) -> None:
        if how == "bare":
            self.retry()
        try:
            raise KeyError("x")
        except KeyError:
            self.retry(exc=ValueError("given") if how == "given" else None)

    for how, error in (("bare", errors.Retry), ("given", ValueError), ("current", KeyError)):
        with pytest.raises(error):
            direct(how)


def test_on_retry_and_the_signal_are_told(app: Any, worker: MiniWorker) -> None:
    heard: list[Any] = []

    def told(**named: Any) -> None:
        heard.append(("signal", named["request"].retries))

    @app.task(bind=True, name="kit.told", on_retry=lambda self, exc, *rest: heard.append(("handler", repr(exc))))
    def again(self: Any) -> None:
        raise self.retry(exc=ValueError(1), countdown=0, max_retries=0 if self.request.retries else 3)

    signals.task_retry.connect(told)
    try:
        again.delay()
        worker.drain()
    finally:
        signals.task_retry.disconnect(told)
    assert heard == [("handler", "ValueError(1)"), ("signal", 0)]
