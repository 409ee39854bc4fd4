"""The tasks that every app has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import KitApp, MiniWorker, add_sums, make_app
from umbel import chain, chord, group
from umbel.core import errors
from umbel.core.message import End

CELERY = ["accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap"]
OURS = ["umbel.fail", "umbel.fail_piece", "umbel.forget", "umbel.join", "umbel.resume", "umbel.unsent"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    app = make_app(tmp_path)

    add_sums(app)

    yield app
    app.close()


def test_every_app_has_them_and_lists_leave_them_out(app: Any) -> None:
    assert sorted(set(app.tasks) - set(app.tasks.own())) == [*(f"celery.{name}" for name in CELERY), *OURS]
    # Shared tasks of other tests may be there too.
    assert {"kit.add", "kit.total"} <= set(app.tasks.own())


def test_a_task_of_that_name_stays_the_apps_own(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    @app.task(name="celery.accumulate")
    def mine() -> str:
        return "mine"

    assert app.tasks["celery.accumulate"].run() == "mine"
    app.close()


def test_annotations_do_not_reach_what_drives_workflows(tmp_path: Path) -> None:
    app = make_app(tmp_path, task_annotations={"*": {"rate_limit": "1/h", "acks_late": False}})
    assert app.tasks["umbel.join"].rate_limit is None
    assert app.tasks["umbel.join"].acks_late is True
    app.close()


def test_accumulate_gives_all_or_one(app: Any) -> None:
    accumulate = app.tasks["celery.accumulate"]
    assert accumulate(1, 2) == [1, 2]
    assert accumulate(1, 2, index=1) == 2


def test_map_and_starmap_call_one_after_the_other(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]
    results = [add.map([1, 2]).apply_async(), add.starmap([(1, 2), (3, 4)]).apply_async()]
    worker.drain()
    assert [result.get(timeout=5) for result in results] == [[1, 2], [3, 7]]


def test_workflows_sent_by_the_names_of_their_kinds_run(app: Any, worker: MiniWorker) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    seen = []

    @app.task(name="kit.note")
    def note(value: Any) -> None:
        seen.append(value)

    last = note.s()
    app.send_task("celery.group", kwargs={"tasks": [dict(add.s(1) | last), dict(add.s(2) | last)]})
    app.send_task("celery.chain", (1,), {"tasks": [dict(add.s(10)), dict(last)]})
    app.send_task("celery.chord", kwargs={"header": [dict(add.s(1)), dict(add.s(2))], "body": dict(total.s() | last)})
    app.send_task("celery.chunks", kwargs={"task": dict(add.s()), "it": [[1, 2], [3, 4], [5, 6]], "n": 2})
    worker.drain()
    assert sorted(seen, key=str) == [1, 11, 2, [1, 2]]


def test_cleaning_up_drops_what_has_expired(tmp_path: Path) -> None:
    app = make_app(tmp_path, result_expires=0.001)

    @app.task(name="kit.add")
    def add(*numbers: int) -> int:
        return sum(numbers)

    worker = MiniWorker(app)
    result = add.delay(1)
    worker.drain()
    deadline = time.monotonic() + 5
    while result.exists():
        assert time.monotonic() < deadline
        app.tasks["celery.backend_cleanup"]()
    app.close()


def members_of_a_foreign_chord(app: Any, *, index: bool = True) -> tuple[Any, str, list[Any]]:
    """Send the header of a chord as a program does whose result store does not count."""
    add, body = app.tasks["kit.add"], app.tasks["kit.total"].s()
    result = body.freeze()
    members = [
        add.apply_async((number,), group_id="foreign", group_index=number if index else None, chord=dict(body))
        for number in range(3)
    ]
    unlock = [((member.id, None), None) for member in members]
    return result, dict(body), unlock


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_chord_that_is_to_be_asked_about_goes_on_by_itself(app: Any, worker: MiniWorker, first: bool) -> None:
    result, body, unlock = members_of_a_foreign_chord(app)
    if not first:
        worker.drain()
    kwargs = {"result": unlock, "interval": 1, "max_retries": None}
    app.send_task("celery.chord_unlock", ("foreign", body), kwargs)
    worker.drain()
    assert result.get(timeout=5) == [0, 1, 2]
    worker.forward(30.0)
    worker.drain()
    assert app.broker.depth(["celery"], time.time())["celery"].scheduled == 0


def test_a_chord_whose_members_nobody_hears_of_ends_at_last(app: Any, worker: MiniWorker) -> None:
    body = app.tasks["kit.total"].s()
    result = body.freeze()
    unlock = [(("elsewhere", None), None)]
    app.send_task("celery.chord_unlock", ("foreign", dict(body)), {"result": unlock})
    for _ in range(100):
        if result.ready():
            break
        worker.drain()
        worker.forward(3600.0)
    with pytest.raises(errors.ChordError, match="did not reach"):
        result.get(timeout=5)


def test_a_chord_of_an_old_program_fails_clearly(app: Any, worker: MiniWorker) -> None:
    result, body, unlock = members_of_a_foreign_chord(app, index=False)
    app.send_task("celery.chord_unlock", ("foreign", body), {"result": unlock})
    worker.drain()
    with pytest.raises(errors.NotSupportedError, match="since 5.5"):
        result.get(timeout=5)


def test_a_join_that_ends_processes_ends_its_chord(app: Any, worker: MiniWorker) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chain(chord(group(add.s(1), add.s(2)), total.s()), total.s()).apply_async()
    worker.step()
    worker.step()
    worker.step(verdict="lost", verdict_text="signal 11")
    worker.drain()
    with pytest.raises(errors.ChordError):
        result.get(timeout=5)


def test_a_join_is_left_to_the_workers_of_its_own_app(app: Any, worker: MiniWorker, tmp_path: Path) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chord(group(add.s(1), add.s(2)), total.s()).apply_async()
    worker.step()
    worker.step()
    with KitApp("other", set_as_current=False, broker=f"sqlite:///{tmp_path}/kit.db") as other:
        stranger = MiniWorker(other)
        report = stranger.step()
        assert report is not None
        assert report.end == End.OFFER
    worker.forward(1.0)
    worker.drain()
    assert result.get(timeout=5) == [1, 2]


def test_a_join_that_nobody_claims_is_done_by_whoever_is_there(app: Any, worker: MiniWorker, tmp_path: Path) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chord(group(add.s(1), add.s(2)), total.s()).apply_async()
    worker.step()
    worker.step()
    changes = {"worker_unknown_task_wait": 0.0}
    with KitApp("other", set_as_current=False, broker=f"sqlite:///{tmp_path}/kit.db", changes=changes) as other:
        report = MiniWorker(other).step()
        assert report is not None
        assert report.end == End.DONE
    worker.drain()
    assert result.get(timeout=5) == [1, 2]
