"""What the ends of tasks do to workflows, with one worker in the test's own thread."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, add_sums, job_of, make_app
from umbel import chain, chord, group
from umbel.app.purging import purge
from umbel.core import errors
from umbel.core.message import End, Settlement
from umbel.engine.seam import Lease


@pytest.fixture(params=[None, 0], ids=["embedded", "stored"])
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    app = make_app(tmp_path, workflow_inline_limit=request.param)

    add_sums(app)

    @app.task(name="kit.fail")
    def fail(*_: Any) -> None:
        raise ValueError("no")

    @app.task(name="kit.ignore")
    def ignore(*_: Any) -> None:
        raise errors.Ignore

    yield app
    app.close()


def tasks(app: Any) -> tuple[Any, Any, Any]:
    return app.tasks["kit.add"], app.tasks["kit.total"], app.tasks["kit.fail"]


def ran(worker: MiniWorker, signature: Any) -> Any:
    """Send a workflow, run all of it, return its result."""
    result = signature.apply_async()
    worker.drain(300)
    return result


def recorder(app: Any, name: str = "kit.note") -> tuple[Any, list[Any]]:
    """A task that keeps what it is given."""
    seen: list[Any] = []

    @app.task(name=name)
    def note(given: Any) -> None:
        seen.append(given)

    return note, seen


# --- success ----------------------------------------------------------------------------------------------


def test_a_chord_gives_its_body_the_values_in_order(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    result = ran(worker, chord([add.s(number) for number in range(12)], total.s()))
    assert result.get(timeout=5) == list(range(12))


def test_workflows_nest(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    inner = chord([add.s(1), add.s(2)], total.s())
    header = [add.s(10), inner, chain(add.s(20), add.s(1)), group(add.s(30), add.s(40)), add.s(5) | group([add.s(1)])]
    assert ran(worker, chord(header, total.s())).get(timeout=5) == [10, [1, 2], 21, 30, 40, 6]


def test_callbacks_may_be_any_workflow_and_are_children(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    links = [
        group(add.s(5), add.s(6)),
        chain(add.s(7), add.s(100)),
        chord([add.s(1), add.s(2)], total.s()),
    ]
    result = ran(worker, add.s(1).set(link=links))
    many, last, body = result.children
    assert many.get(timeout=5) == [6, 7]
    assert last.get(timeout=5) == 108
    assert body.get(timeout=5) == [2, 3]
    assert body.parent.get(timeout=5) == [2, 3]


def test_a_run_that_is_repeated_sends_the_same_workflow_again(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    (add.s(1) | group([add.s(n) for n in range(5)]) | total.s()).apply_async()
    (delivery,) = worker.lease()
    first, second = (worker.runner.run(job_of(delivery)) for _ in range(2))
    assert [one.id for one in first.publish] == [one.id for one in second.publish]
    assert len({one.id for one in first.publish}) == 5
    assert [one.body for one in first.publish] == [one.body for one in second.publish]


def test_the_body_knows_where_it_comes_from(app: Any, worker: MiniWorker) -> None:
    add, _, _ = tasks(app)
    seen = []

    @app.task(bind=True, name="kit.look")
    def look(self: Any, values: Any) -> None:
        seen.append((self.request.root_id, self.request.parent_id))

    result = ran(worker, chord([add.s(1), add.s(2)], look.s()))
    members = [member.id for member in result.parent.results]
    ((root, parent),) = seen
    assert root in members
    assert parent == members[-1]


def test_the_body_inherits_the_priority_of_the_header_where_that_is_asked_for(tmp_path: Path) -> None:
    app = make_app(tmp_path, task_inherit_parent_priority=True)
    seen = []

    @app.task(bind=True, name="kit.look")
    def look(self: Any, *_: Any) -> None:
        seen.append(self.request.delivery_info["priority"])

    ran(MiniWorker(app), chord([look.s().set(priority=7), look.s().set(priority=7)], look.s()))
    assert seen == [7, 7, 7]
    app.close()


def test_an_ignored_member_counts_as_none(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    assert ran(worker, chord([add.s(1), app.tasks["kit.ignore"].s()], total.s())).get(timeout=5) == [1, None]


def test_members_whose_results_are_ignored_reach_the_body(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    header = [add.s(number).set(ignore_result=True) for number in range(3)]
    assert ran(worker, chord(header, total.s())).get(timeout=5) == [0, 1, 2]


def test_a_repeated_join_sends_the_body_once(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    result = chord([add.s(1), add.s(2)], total.s()).apply_async()
    for _ in range(2):
        worker.step()
    (join,) = worker.lease()
    report = worker.runner.run(job_of(join))
    worker.commit(join, report)
    worker.drain()
    again = worker.runner.run(job_of(join))
    assert [message.task for message in again.publish] == []
    assert result.get(timeout=5) == [1, 2]


# --- failure ----------------------------------------------------------------------------------------------


def test_a_failed_member_fails_the_body_its_errbacks_hear_and_what_follows_fails(app: Any, worker: MiniWorker) -> None:
    add, total, fail = tasks(app)
    told = []

    @app.task(name="kit.details")
    def details(request: Any, exc: BaseException, _trace: Any) -> None:
        told.append((request.id, request.task, exc))

    note, ids = recorder(app)
    body = total.s().on_error(details.s())
    body.link_error(note.s())
    result = ran(worker, chord([add.s(1), fail.s()], body) | add.s(1))
    with pytest.raises(errors.ChordError, match=r"Dependency .* raised ValueError\('no'\)"):
        result.get(timeout=5)
    ((task_id, name, exc),) = told
    assert name == "kit.total"
    assert isinstance(exc, errors.ChordError)
    assert ids == [task_id]
    with pytest.raises(errors.ChordError):
        result.parent.get(timeout=5)


def test_a_failed_step_in_a_header_fails_its_chord_and_the_chord_around(app: Any, worker: MiniWorker) -> None:
    add, total, fail = tasks(app)
    inner = chord([fail.s(), add.s(1)], total.s())
    result = ran(worker, chord([add.s(1), chain(fail.s(), add.s(1), add.s(2)), inner], total.s()))
    with pytest.raises(errors.ChordError):
        result.get(timeout=5)
    _, last, body = result.parent.results
    with pytest.raises(ValueError, match="no"):
        last.get(timeout=5)
    with pytest.raises(errors.ChordError):
        body.get(timeout=5)


def test_each_member_of_a_body_that_is_a_group_fails(app: Any, worker: MiniWorker) -> None:
    add, _, fail = tasks(app)
    note, ids = recorder(app)
    result = ran(worker, chord([fail.s(), add.s(1)], group(add.si(1), add.si(2)).on_error(note.s())))
    members = result.results
    assert [member.state for member in members] == ["FAILURE", "FAILURE"]
    assert sorted(ids) == sorted(member.id for member in members)


def test_errbacks_may_be_any_workflow(app: Any, worker: MiniWorker) -> None:
    _, _, fail = tasks(app)
    note, seen = recorder(app)

    @app.task(name="kit.pass")
    def hand_on(value: Any) -> Any:
        return value

    result = ran(worker, fail.s().on_error(group(hand_on.s() | note.s(), note.s())))
    assert seen == [result.id] * 2


def test_a_body_that_cannot_be_sent_fails_with_the_reason(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    result = ran(worker, chord([add.s(1)], total.s().set(serializer="none")))
    with pytest.raises(errors.ChordError, match="Callback error: .*unknown serializer"):
        result.get(timeout=5)


VERDICTS = ["lost", "timeout", "revoked", "expired", "terminated", "unknown"]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_chord_hears_of_a_member_that_ends_without_running(app: Any, worker: MiniWorker, verdict: str) -> None:
    add, total, _ = tasks(app)
    result = chord([add.s(1), add.s(2) | add.s(3)], total.s()).apply_async()
    worker.step()
    worker.step(verdict=verdict, verdict_text="1")
    worker.drain()
    with pytest.raises(errors.ChordError):
        result.get(timeout=5)
    assert result.parent.results[1].state == "FAILURE"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_chord_hears_of_an_end_that_no_executor_concludes(app: Any, worker: MiniWorker, verdict: str) -> None:
    from umbel.worker.endings import plain_ending

    add, total, _ = tasks(app)
    note, ids = recorder(app)
    result = chord([add.s(1), add.s(2).on_error(note.s()) | add.s(3)], total.s()).apply_async()
    worker.step()
    (delivery,) = worker.lease()
    settlement = plain_ending(app, delivery, verdict, "text", now=time.time())
    app.engine.atomic.commit("mini", [settlement], time.time())
    worker.drain()
    with pytest.raises(errors.ChordError):
        result.get(timeout=5)
    assert ids == [delivery.id]
    assert result.parent.results[1].state == "FAILURE"


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_a_member_that_cannot_be_read_fails_the_chord(app: Any, worker: MiniWorker, last: bool) -> None:
    add, total, _ = tasks(app)
    result = chord([add.s(1), add.s(2)], total.s()).apply_async()
    deliveries = worker.lease()
    deliveries[int(last)].body = b"garbage"
    for delivery in deliveries:
        worker.commit(delivery, worker.runner.run(job_of(delivery)))
    worker.drain()
    with pytest.raises(errors.ChordError, match="InvalidTaskError"):
        result.get(timeout=5)


def test_an_unknown_member_fails_the_chord(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    unknown = app.signature("kit.nobody_knows", args=(1,))
    with pytest.raises(errors.ChordError, match="nobody_knows"):
        ran(worker, chord([add.s(1), unknown], total.s())).get(timeout=5)


def test_a_retry_keeps_its_place_in_the_chord(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)

    @app.task(bind=True, name="kit.again")
    def again(self: Any, value: int) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return value

    assert ran(worker, chord([again.s(7), add.s(1)], total.s())).get(timeout=5) == [7, 1]


def test_a_member_without_a_place_fails_the_chord_clearly(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    body = total.s()
    result = body.freeze()
    add.apply_async((1,), chord=dict(body), group_id="old")
    worker.drain()
    with pytest.raises(errors.NotSupportedError, match="since 5.5"):
        result.get(timeout=5)


def test_a_size_that_travels_with_the_body_is_enough(app: Any, worker: MiniWorker) -> None:
    # Workers before Celery 5.1 and some brokers write it there.
    add, total, _ = tasks(app)
    body = total.s()
    result = body.freeze()
    for index in range(2):
        add.apply_async((index,), chord={**body, "chord_size": 2}, group_id="old", group_index=index)
    worker.drain()
    assert result.get(timeout=5) == [0, 1]


def test_without_a_result_store_a_chord_is_refused(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_backend="disabled")

    @app.task(name="kit.add")
    def add(x: Any) -> Any:
        return x

    with pytest.raises(NotImplementedError, match="result_backend"):
        chord([add.s(1)], add.s()).apply_async()
    app.close()


def test_a_worker_without_a_store_fails_the_members_of_chords_clearly(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_backend="disabled")
    app.conf.task_store_errors_even_if_ignored = True

    @app.task(name="kit.add")
    def add(x: Any) -> Any:
        return x

    worker = MiniWorker(app)
    add.apply_async((1,), chord=dict(add.s()), group_id="foreign", group_index=0)
    (report, *_) = worker.drain()
    assert "set result_backend" in report.log
    assert report.parts == ()
    app.close()


# --- purge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"countdown": 1000}], ids=["due", "not due yet"])
def test_what_is_purged_counts_as_revoked(app: Any, worker: MiniWorker, options: dict[str, Any]) -> None:
    add, total, _ = tasks(app)
    note, ids = recorder(app)
    joined = chord([add.s(1), add.s(2).set(**options)], total.s()).apply_async()
    last = chain(add.s(1).set(**options).on_error(note.s()), add.s(2)).apply_async()
    alone = add.apply_async((1,), **options)
    assert purge(app, ["celery"]) == 4
    worker.drain()
    with pytest.raises(errors.ChordError, match="purged"):
        joined.get(timeout=5)
    with pytest.raises(errors.TaskRevokedError):
        last.get(timeout=5)
    assert last.parent.state == "REVOKED"
    assert ids == [last.parent.id]
    assert not alone.exists()


def test_what_drives_workflows_is_not_purged(app: Any, worker: MiniWorker) -> None:
    add, total, _ = tasks(app)
    result = chord([add.s(1)], total.s()).apply_async()
    worker.step()
    app.control.purge()
    with pytest.raises(errors.NotSupportedError, match=r"celery\.umbel"):
        purge(app, ["celery.umbel"])
    worker.drain()
    assert result.get(timeout=5) == [1]


def test_what_is_not_due_is_purged_too(app: Any) -> None:
    add, _, _ = tasks(app)
    add.apply_async((1,), countdown=100)
    add.delay(1)
    assert purge(app, ["celery"]) == 2
    assert app.broker.lease(Lease(("celery",), "x", 10, 30.0), time.time() + 1000) == []


# --- stubs ------------------------------------------------------------------------------------------------


def test_a_stub_that_was_sent_as_the_task_it_is_goes_on_with_its_piece(tmp_path: Path) -> None:
    app = make_app(tmp_path, workflow_inline_limit=0)

    @app.task(name="kit.add")
    def add(*numbers: int) -> int:
        return sum(numbers)

    worker = MiniWorker(app)
    result = chain(*[add.s(10**place) for place in range(10)]).apply_async()
    (delivery,) = worker.lease()
    report = worker.runner.run(job_of(delivery))
    # What a Celery worker would do with the stub in its chain: send it.
    app.broker.settle("mini", [Settlement(delivery.tag, delivery.token)], time.time())
    stub, *before = json.loads(delivery.body)[2]["chain"]
    assert stub["task"] == "umbel.resume"
    value = sum(10**place for place in range(1 + len(before)))
    app.send_task(stub["task"], (value, *stub["args"]), **stub["options"])
    assert report.end == End.DONE
    worker.drain()
    assert result.get(timeout=5) == 1111111111
    app.close()
