"""What failed in a workflow runs again, and the workflow goes on from there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import KitApp, MiniWorker, add_sums, job_of, make_app
from umbel import chain, chord, group
from umbel.app import kept
from umbel.core.errors import NotSupportedError, TaskError
from umbel.core.message import End, Settlement
from umbel.engine.settle import commit
from umbel.worker.endings import plain_ending


@pytest.fixture(params=["sqlite embedded", "sqlite stored", "memory embedded"])
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    engine, form = request.param.split()
    limit = None if form == "embedded" else 0
    if engine == "sqlite":
        app = make_app(tmp_path, workflow_inline_limit=limit)
    else:
        settings = {"workflow_inline_limit": limit}
        app = KitApp("kit", set_as_current=False, broker=f"memory://{tmp_path.name}", changes=settings)
    app.broken = {"x", "y"}

    add_sums(app)

    @app.task(name="kit.may", bind=True)
    def may(self: Any, *given: Any) -> Any:
        if given[-1] in app.broken:
            raise ValueError(given[-1])
        return given[-1]

    @app.task(name="kit.total_or", bind=True)
    def total_or(self: Any, values: list[Any], name: str) -> list[Any]:
        if name in app.broken:
            raise ValueError(name)
        return values

    yield app
    app.close()


def ran(worker: MiniWorker, signature: Any) -> Any:
    result = signature.apply_async()
    worker.drain(300)
    return result


def repaired(app: Any, worker: MiniWorker, result: Any) -> list[str]:
    """Repair the world, run again what failed and all that follows; return the ids that ran again."""
    app.broken = set()
    ids: list[str] = result.retry_failed(timeout=1)
    worker.drain(300)
    return ids


def parts(app: Any) -> tuple[Any, Any, Any]:
    return app.tasks["kit.add"], app.tasks["kit.total"], app.tasks["kit.may"]


def test_a_chain_goes_on_at_the_step_that_failed(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    result = ran(worker, chain(add.s(1, 2), may.s("x"), total.s(), total.s(), total.s()))
    failed = result.parent.parent.parent
    assert (result.state, failed.state, failed.parent.state) == ("FAILURE", "FAILURE", "SUCCESS")
    before = len(worker.reports)
    assert repaired(app, worker, result) == [failed.id]
    assert result.get(timeout=5) == "x"
    assert [report.kind for report in worker.reports[before:]] == ["success"] * 4
    with pytest.raises(TaskError, match="nothing of this workflow has failed"):
        result.retry_failed()


def test_a_last_step_and_a_member_of_a_plain_group_run_again(app: Any, worker: MiniWorker) -> None:
    add, _, may = parts(app)
    last = ran(worker, chain(add.s(1, 2), may.s("x")))
    members = ran(worker, group(may.s("x"), may.s("fine"), may.s("y")))
    assert repaired(app, worker, last) == [last.id]
    assert repaired(app, worker, members) == [members[0].id, members[2].id]
    assert (last.get(timeout=5), members.get(timeout=5)) == ("x", ["x", "fine", "y"])


def test_a_chord_completes_with_the_members_that_ended_well(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    result = ran(worker, chord([may.s("x"), add.s(1), may.s("y"), add.s(2)], total.s()) | total.s())
    assert repaired(app, worker, result) == [result.parent.parent[0].id, result.parent.parent[2].id]
    assert result.get(timeout=5) == ["x", 1, "y", 2]
    assert result.parent.parent.get(timeout=5) == ["x", 1, "y", 2]


def test_a_header_may_have_more_values_than_one_piece_holds(
    app: Any, worker: MiniWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, total, may = parts(app)
    monkeypatch.setattr(kept, "_BLOCK", 200)
    result = ran(worker, chord([*(add.s(n) for n in range(20)), may.s("x")], total.s()))
    assert repaired(app, worker, result) == [result.parent[20].id]
    assert result.get(timeout=5) == [*range(20), "x"]
    assert kept.kept_groups(app, [result.parent.id]) == {}


def test_a_body_that_failed_runs_again_with_the_values_of_the_header(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    result = ran(worker, chord([add.s(1), add.s(2)], app.tasks["kit.total_or"].s("x")))
    before = len(worker.reports)
    assert repaired(app, worker, result) == [result.id]
    assert result.get(timeout=5) == [1, 2]
    assert len(worker.reports) - before == 1


def test_chords_in_chords_in_chains_go_on(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    inner = chord([add.s(1), chain(add.s(1), may.s("x"), total.s())], total.s())
    outer = chord([inner, may.s("y"), add.s(5), group(add.s(6), add.s(7))], total.s())
    result = ran(worker, chain(add.s(0), outer, total.s()))
    assert result.state == "FAILURE"
    ids = repaired(app, worker, result)
    assert len(ids) == 2
    assert result.get(timeout=5) == [[1, "x"], "y", 5, 6, 7]


def test_what_fails_again_can_be_run_again(app: Any, worker: MiniWorker) -> None:
    _, total, may = parts(app)
    result = ran(worker, chord([may.s("x"), may.s("y")], total.s()))
    app.broken = {"y"}
    assert len(result.retry_failed(timeout=1)) == 2
    worker.drain(300)
    assert result.state == "FAILURE"
    app.broken = {"x"}
    assert result.retry_failed(timeout=1) == [result.parent[1].id]
    worker.drain(300)
    assert result.get(timeout=5) == ["x", "y"]


def test_members_that_came_later_have_their_places_again(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)

    @app.task(name="kit.more", bind=True)
    def more(self: Any) -> str:
        self.add_to_chord(may.s("y"))
        self.add_to_chord(add.s(3))
        return "more"

    result = ran(worker, chord([more.s(), may.s("x")], total.s()))
    assert len(repaired(app, worker, result)) == 2
    assert result.get(timeout=5) == ["more", "x", "y", 3]


def test_a_task_that_nobody_knew_runs_again_and_is_no_dead_letter_any_more(app: Any, worker: MiniWorker) -> None:
    add, total, _ = parts(app)
    result = ran(worker, chord([app.signature("kit.late", (4,)), add.s(1)], total.s()))
    assert [letter.message.task for letter in app.dead.browse()] == ["kit.late"]

    @app.task(name="kit.late")
    def late(value: int) -> int:
        return value

    assert len(repaired(app, worker, result)) == 1
    assert result.get(timeout=5) == [4, 1]
    assert app.dead.browse() == []


@pytest.mark.parametrize("dead", [False, True], ids=["done", "dead letter"])
def test_a_task_that_no_executor_was_left_to_conclude_runs_again(app: Any, worker: MiniWorker, dead: bool) -> None:
    add, total, _ = parts(app)
    result = chord([add.s(1), add.s(2) | add.s(3)], total.s()).apply_async()
    worker.step()
    (delivery,) = worker.lease()
    ending = plain_ending(app, delivery, "lost", "Worker exited prematurely", now=time.time(), dead=dead)
    assert commit(app.engine, app.engine, "mini", [ending], time.time()) == []
    worker.drain(300)
    assert result.state == "FAILURE"
    assert repaired(app, worker, result) == [delivery.id]
    assert result.get(timeout=1) == [1, 5]
    assert app.dead.browse() == []


def test_results_that_are_ignored_do_not_hide_what_failed(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    result = ran(worker, chord([may.s("x").set(ignore_result=True), add.s(1)], total.s()))
    assert len(repaired(app, worker, result)) == 1
    assert result.get(timeout=5) == ["x", 1]


def test_what_cannot_run_again_is_said_and_nothing_is_changed(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    alone = ran(worker, may.s("x"))
    with pytest.raises(TaskError, match="belongs to no workflow"):
        alone.retry_failed()
    running = chord([may.s("x"), add.s(1)], total.s()).apply_async()
    worker.step()
    with pytest.raises(TaskError, match="has not ended yet"):
        running.retry_failed(timeout=0.1)
    worker.drain(300)
    revoked = chord([may.s("y"), may.s("x"), add.s(1)], total.s()).apply_async()
    worker.step(verdict="revoked")
    worker.drain(300)
    with pytest.raises(TaskError, match=f"{revoked.parent[0].id}, which the header of a chord needs, was revoked"):
        revoked.retry_failed()
    assert [one.state for one in (revoked, *revoked.parent)] == ["FAILURE", "REVOKED", "FAILURE", "SUCCESS"]


def test_what_was_revoked_or_called_here_is_not_run_again(app: Any, worker: MiniWorker) -> None:
    add, total, _ = parts(app)
    result = (add.s(1) | add.s(2)).apply_async()
    result.parent.revoke()
    worker.drain()
    with pytest.raises(TaskError, match="was revoked or has expired, and only what failed is run again"):
        result.retry_failed(timeout=1)
    for here in (add.s("x", 1).apply(), group([add.s(1), add.s("x", 1)]).apply(), chord([add.s(1)], total.s()).apply()):
        with pytest.raises(NotSupportedError, match="called here"):
            here.retry_failed()


def test_what_was_to_run_until_a_time_that_is_over_is_not_sent_again(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    over = time.time() + 1.2
    result = ran(worker, chord([may.s("x").set(expires=1.0), add.s(1)], total.s()))
    while time.time() < over:
        time.sleep(0.01)
    with pytest.raises(TaskError, match="a time that is over"):
        result.retry_failed()


def test_a_join_that_was_cut_off_after_it_closed_its_header_fails_the_body_all_the_same(
    app: Any, worker: MiniWorker
) -> None:
    add, total, may = parts(app)
    result = chord([chord([may.s("x"), add.s(1)], total.s()), add.s(2)], total.s()).apply_async()
    while True:
        (first, *rest) = worker.lease()
        for delivery in rest:
            settled = Settlement(delivery.tag, delivery.token, End.RELEASE)
            app.broker.settle("mini", [settled], worker.clock.now())
        report = worker.runner.run(job_of(first))
        if first.task == "umbel.join":
            break
        worker.commit(first, report)
    again = worker.runner.run(job_of(first))
    assert (again.publish, again.parts) == (report.publish, report.parts)
    assert len(again.parts) == 1
    worker.commit(first, again)
    worker.drain()
    assert result.state == "FAILURE"
    assert len(repaired(app, worker, result)) == 1
    assert result.get(timeout=5) == [["x", 1], 2]


def test_a_client_that_died_on_the_way_can_be_followed_by_another(
    app: Any, worker: MiniWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, total, may = parts(app)
    result = ran(worker, chord([may.s("x"), may.s("fine"), chain(may.s("y"), total.s())], total.s()))
    app.broken = set()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(app.client, "send", die)
        with pytest.raises(KeyboardInterrupt):
            result.retry_failed(timeout=1)
    assert len(repaired(app, worker, result)) == 2
    assert result.get(timeout=5) == ["x", "fine", "y"]


def test_what_is_kept_goes_when_results_go(app: Any, worker: MiniWorker) -> None:
    add, total, may = parts(app)
    result = ran(worker, chord([may.s("x"), add.s(1)], total.s()))
    app.store.expire(time.time() + app.conf.result_expires + 60)
    with pytest.raises(TaskError, match="nothing of this workflow has failed"):
        result.retry_failed()
