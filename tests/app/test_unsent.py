"""Workflows whose producer stops while it sends them: the chords that it left open end and say why."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import KitApp, MiniWorker, add_sums, make_app
from umbel import chord, group
from umbel.app.canvas.underway import LeftOpen, Underway
from umbel.app.ids import new_id
from umbel.app.parts import Place, join_message
from umbel.core.message import End


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    app = make_app(tmp_path)

    add, _ = add_sums(app)

    @app.task(name="kit.more", bind=True)
    def more(self: Any, fails: bool = False) -> str:
        self.add_to_chord(object() if fails else add.s(7))
        return "more"

    yield app
    app.close()


def in_steps(app: Any, step: int) -> None:
    """Let the app's engine be one that stores so many messages in one step."""
    object.__setattr__(app.engine.caps, "step", step)


def sweep(app: Any, later: float = 0.0) -> int:
    """Publish what nobody goes on with, as workers do every few seconds."""
    late = app.store.unconfirmed(time.time() + later)
    app.broker.publish([each.body for each in late if each.body is not None], time.time())
    app.store.confirm([each.group for each in late])
    return len(late)


def noting(app: Any) -> tuple[Any, list[str]]:
    told: list[str] = []

    @app.task(name="kit.note")
    def note(failed: str) -> None:
        told.append(failed)

    return note, told


def test_a_generator_that_fails_ends_the_chord_that_it_was_feeding(app: Any, worker: MiniWorker) -> None:
    note, told = noting(app)

    def members() -> Iterator[Any]:
        for number in range(2500):
            if number == 2300:
                raise ValueError("no more")
            yield app.tasks["kit.add"].s(number)

    body = app.tasks["kit.total"].s().set(task_id=new_id(), link_error=[note.s()])
    with pytest.raises(ValueError, match="no more"):
        chord(members(), app=app)(body)
    result = app.AsyncResult(body.id)
    assert sweep(app) == 1
    app.broker.purge(["celery"])
    worker.drain()
    with pytest.raises(Exception, match="the producer stopped while it sent the workflow: 2,000 messages were surely "):
        result.get(timeout=5)
    assert "ValueError('no more')" in str(result.result)
    assert told == [body.id]
    assert sweep(app, 60) == 0


def test_a_generator_that_fails_before_anything_is_sent_leaves_nothing(app: Any) -> None:
    def members() -> Iterator[Any]:
        yield app.tasks["kit.add"].s(1)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        chord(members(), app=app)(app.tasks["kit.total"].s())
    assert sweep(app, 60) == 0
    assert app.broker.depth([], time.time()).get("celery") is None


def test_a_header_that_a_broker_stores_in_parts_ends_if_the_last_are_refused(app: Any, worker: MiniWorker) -> None:
    in_steps(app, 1)
    body = app.tasks["kit.total"].s().set(task_id=new_id())
    sent = itertools.count()
    send = app.client.send

    def fails_later(messages: Any, **options: Any) -> None:
        if next(sent) == 2:
            raise RuntimeError("the line is cut")
        send(messages, **options)

    app.client.send = fails_later
    inner = chord([app.tasks["kit.add"].s(1), app.tasks["kit.add"].s(2)], app.tasks["kit.total"].s())
    with pytest.raises(RuntimeError, match="the line is cut"):
        chord([*(app.tasks["kit.add"].s(n) for n in range(2500)), inner], app=app)(body)
    app.client.send = send
    assert sweep(app) == 1
    app.broker.purge(["celery"])
    worker.drain()
    result = app.AsyncResult(body.id)
    with pytest.raises(Exception, match="2,000 of 2,502 messages were surely sent"):
        result.get(timeout=5)
    assert sweep(app, 60) == 0


def test_of_several_chords_those_are_ended_that_were_not_sent_as_a_whole(app: Any, worker: MiniWorker) -> None:
    in_steps(app, 1)
    sent, send = itertools.count(), app.client.send

    def fails_later(messages: Any, **options: Any) -> None:
        if next(sent) == 2:
            raise RuntimeError("the line is cut")
        send(messages, **options)

    app.client.send = fails_later
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    bodies = [total.s().set(task_id=new_id()) for _ in range(3)]
    chords = [chord([add.s(n) for n in range(900)], body, app=app) for body in bodies]
    with pytest.raises(RuntimeError, match="the line is cut"):
        group(chords, app=app)()
    app.client.send = send
    assert sweep(app) == 1
    app.broker.purge(["celery"])
    worker.drain()
    ended = app.store.get([body.id for body in bodies], time.time())
    assert {one.id: one.state for one in ended.values()} == {bodies[2].id: "FAILURE"}


def test_a_producer_that_is_alive_is_left_alone_whatever_the_clocks_say(app: Any, worker: MiniWorker) -> None:
    group_id, body = new_id(), app.tasks["kit.total"].s().set(task_id=new_id())
    left = LeftOpen(group_id, join_message(app, Place(group_id, None, dict(body))), 2)
    with Underway(app, group_id, [left], 2) as mark:
        # The worker's clock is ahead by a minute.
        assert sweep(app, 60) == 1
        assert len(worker.drain()) == 1
        mark.add(1)
        worker.forward(60)
        assert len(worker.drain()) == 1
    assert app.store.get([body.id], time.time()) == {}
    assert sweep(app, 60) == 0


def test_a_producer_that_does_not_say_that_it_is_alive_has_died(app: Any, worker: MiniWorker) -> None:
    group_id, body = new_id(), app.tasks["kit.total"].s().set(task_id=new_id())
    left = LeftOpen(group_id, join_message(app, Place(group_id, None, dict(body))), 2)
    dead = Underway(app, group_id, [left], 2)
    dead._write()
    assert sweep(app) == 0
    assert sweep(app, 20) == 1
    worker.drain()
    worker.forward(60)
    worker.drain()
    with pytest.raises(Exception, match=r"stopped while it sent the workflow: 0 of 2 messages were surely sent"):
        app.AsyncResult(body.id).get(timeout=5)


def test_a_header_that_completed_is_not_ended_again(app: Any, worker: MiniWorker) -> None:
    result = chord([app.tasks["kit.add"].s(n) for n in range(2)], app=app)(app.tasks["kit.total"].s())
    assert result.parent is not None
    left = LeftOpen(result.parent.id, join_message(app, Place(result.parent.id, None, {})), 2)
    Underway(app, result.parent.id, [left], 2)._write()
    worker.drain()
    sweep(app, 60)
    worker.drain()
    worker.forward(60)
    worker.drain()
    assert result.get(timeout=5) == [0, 1]


@pytest.mark.parametrize("grown", [False, True], ids=["before it grew", "after it grew"])
def test_a_member_that_was_let_in_and_never_sent_fails_the_chord(app: Any, worker: MiniWorker, grown: bool) -> None:
    group_id, body = new_id(), app.tasks["kit.total"].s().set(task_id=new_id())
    waits = dict(body)
    members = [app.tasks["kit.add"].s(1).set(group_id=group_id, group_index=0, chord=waits)]
    app.store.expect({group_id: 1}, time.time())
    left = LeftOpen(group_id, join_message(app, Place(group_id, None, waits)), 0, None, 1, "key")
    Underway(app, "adding", [left], 1)._write()
    if grown:
        app.store.grow(group_id, 1, time.time(), "key")
    sweep(app, 60)
    worker.drain()
    worker.forward(60)
    worker.drain()
    assert app.store.get([body.id], time.time()) == {}
    for member in members:
        member.apply_async()
    worker.drain()
    with pytest.raises(Exception, match="the producer stopped"):
        app.AsyncResult(body.id).get(timeout=5)


def test_add_to_chord_leaves_no_mark(app: Any, worker: MiniWorker) -> None:
    result = chord([app.tasks["kit.more"].s()], app=app)(app.tasks["kit.total"].s())
    worker.drain()
    assert result.get(timeout=5) == ["more", 7]
    assert sweep(app, 60) == 0


def test_a_group_without_a_body_needs_no_mark(app: Any) -> None:
    in_steps(app, 1)
    group(app.tasks["kit.add"].s(n) for n in range(1500))()
    assert sweep(app, 60) == 0


def test_a_worker_of_another_app_leaves_the_mark_to_those_who_know_the_task(app: Any, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    backend = f"sqlite:///{tmp_path}/results/other.db"
    other = KitApp("other", set_as_current=False, broker=app.conf.broker_url, backend=backend)
    in_steps(app, 1)
    with pytest.raises(RuntimeError, match="cut off"), _cut_off(app):
        chord([app.tasks["kit.add"].s(n) for n in range(2)], app=app)(app.tasks["kit.total"].s())
    app.broker.purge(["celery"])
    assert sweep(app) == 1
    report = MiniWorker(other).step()
    assert report is not None
    assert report.end is End.OFFER
    ended = MiniWorker(app)
    ended.forward(1)
    assert {one.end for one in ended.drain()} == {End.DONE}
    assert sweep(app, 60) == 0
    other.close()


@contextmanager
def _cut_off(app: Any) -> Iterator[None]:
    """Let sending fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("cut off")

    send, app.client.send = app.client.send, fail
    try:
        yield
    finally:
        app.client.send = send


def test_what_the_body_is_given_may_need_the_serializer_of_the_members(app: Any) -> None:
    app.conf.accept_content = ["json", "pickle"]
    in_steps(app, 1)
    members = [app.tasks["kit.add"].s(n).set(serializer="pickle") for n in range(2)]
    body = app.tasks["kit.total"].s().set(task_id=new_id(), headers={"odd": 1j})
    with pytest.raises(RuntimeError, match="cut off"), _cut_off(app):
        chord(members, body, app=app).apply_async()
    assert sweep(app) == 1
    MiniWorker(app).drain()
    with pytest.raises(Exception, match="RuntimeError.*cut off"):
        app.AsyncResult(body.id).get(timeout=5)
