"""Tasks that hand their place to others, or let others into their chord."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker, add_sums, job_of, make_app
from umbel import chain, chord, group
from umbel.core import errors


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    app = make_app(tmp_path)

    add, total = add_sums(app)

    @app.task(name="kit.fail")
    def fail(*_: Any) -> None:
        raise ValueError("no")

    @app.task(name="kit.replace", bind=True)
    def replace(self: Any, value: int, how: str) -> Any:
        kinds = {
            "task": lambda: add.s(value, 10),
            "chain": lambda: chain(add.s(value, 1), add.s(10), add.s(100)),
            "group": lambda: group(add.s(value), add.s(7)),
            "chord": lambda: chord([add.s(value), add.s(7)], total.s()),
            "chain ending in a group": lambda: chain(add.s(value), group(add.s(1), add.s(2))),
            "itself": lambda: replace.s(value + 1, "task" if value > 3 else "itself"),
            "failure": fail.s,
        }
        return self.replace(kinds[how]())

    yield app
    app.close()


KINDS = {
    "task": 11,
    "chain": 112,
    "group": [1, 7],
    "chord": [1, 7],
    "chain ending in a group": [2, 3],
    "itself": 15,
}


@pytest.mark.parametrize(("how", "value"), KINDS.items())
def test_what_replaces_a_task_gives_its_result(app: Any, worker: MiniWorker, how: str, value: Any) -> None:
    seen = []

    @app.task(name="kit.note")
    def note(given: Any) -> None:
        seen.append(given)

    result = app.tasks["kit.replace"].apply_async((1, how), link=note.s())
    worker.drain()
    assert result.get(timeout=5) == value
    assert seen == [value]


@pytest.mark.parametrize(("how", "value"), KINDS.items())
def test_what_replaces_a_task_keeps_its_place_in_chain_and_chord(
    app: Any, worker: MiniWorker, how: str, value: Any
) -> None:
    replace, total = app.tasks["kit.replace"], app.tasks["kit.total"]
    result = chord([replace.s(1, how), chain(replace.s(1, how), total.s())], total.s()).apply_async()
    worker.drain()
    assert result.get(timeout=5) == [value, value]


def test_the_failure_of_what_replaces_a_task_is_its_own(app: Any, worker: MiniWorker) -> None:
    seen = []

    @app.task(name="kit.errback")
    def errback(task_id: str) -> None:
        seen.append(task_id)

    add, replace = app.tasks["kit.add"], app.tasks["kit.replace"]
    result = replace.s(1, "failure").on_error(errback.s()).apply_async()
    follower = chain(replace.s(1, "failure"), add.s(1)).apply_async()
    worker.drain()
    for failed in (result, follower, follower.parent):
        with pytest.raises(ValueError, match="no"):
            failed.get(timeout=5)
    assert seen == [result.id]


def test_a_replacement_that_is_repeated_sends_the_same_messages(app: Any, worker: MiniWorker) -> None:
    app.tasks["kit.replace"].delay(1, "chain ending in a group")
    (delivery,) = worker.lease()
    first, second = (worker.runner.run(job_of(delivery)) for _ in range(2))
    assert [one.id for one in first.publish] == [one.id for one in second.publish]
    assert first.record is None


def test_what_replaces_a_task_knows_how_deep_it_is(app: Any, worker: MiniWorker) -> None:
    seen = []

    @app.task(name="kit.deep", bind=True)
    def deep(self: Any, left: int) -> Any:
        seen.append((self.request.replaced_task_nesting, self.request.id))
        return self.replace(deep.s(left - 1)) if left else "end"

    result = deep.delay(3)
    worker.drain()
    assert seen == [(depth, result.id) for depth in range(4)]
    assert result.get(timeout=5) == "end"


def test_a_replacement_can_be_retried(app: Any, worker: MiniWorker) -> None:
    @app.task(name="kit.again", bind=True)
    def again(self: Any) -> str:
        if not self.request.retries:
            raise self.retry(countdown=0)
        return f"{self.request.retries}, {self.request.replaced_task_nesting}"

    @app.task(name="kit.first", bind=True)
    def first(self: Any) -> Any:
        return self.replace(again.s())

    result = first.delay()
    worker.drain()
    assert result.get(timeout=5) == "1, 1"


def test_a_hook_sees_what_is_sent(app: Any, worker: MiniWorker) -> None:
    seen = []

    class Watched(app.Task):  # type: ignore[misc,name-defined]
        def on_replace(self, sig: Any) -> Any:
            seen.append(sig.id)
            return super().on_replace(sig)

    @app.task(name="kit.watched", bind=True, base=Watched)
    def watched(self: Any) -> Any:
        return self.replace(app.tasks["kit.add"].s(1))

    result = watched.delay()
    worker.drain()
    assert seen == [result.id]
    assert result.get(timeout=5) == 1


def test_replacing_runs_in_place_when_eager(app: Any) -> None:
    replace = app.tasks["kit.replace"]
    assert [replace.apply((1, how)).get() for how in KINDS] == list(KINDS.values())
    assert [replace(1, how) for how in KINDS] == list(KINDS.values())


def test_what_cannot_replace_is_refused(app: Any, worker: MiniWorker) -> None:
    add = app.tasks["kit.add"]

    @app.task(name="kit.wrong", bind=True)
    def wrong(self: Any, empty: bool) -> Any:
        return self.replace(chain() if empty else add.s(1).set(chord=add.s()))

    results = [wrong.delay(True), wrong.delay(False)]
    worker.drain()
    for result in results:
        with pytest.raises(errors.ImproperlyConfigured):
            result.get(timeout=5)


# --- add_to_chord -----------------------------------------------------------------------------------------


@pytest.fixture
def grow(app: Any) -> Any:
    @app.task(name="kit.grow", bind=True)
    def grow(self: Any, count: int, lazy: bool = False) -> int:
        add = app.tasks["kit.add"]
        for number in range(count):
            added = self.add_to_chord(group(add.s(number), add.s(100)), lazy=lazy)
            if lazy:
                added.apply_async()
        return -1

    return grow


@pytest.mark.parametrize("lazy", [False, True], ids=["sent", "lazy"])
def test_members_that_come_later_are_waited_for(app: Any, worker: MiniWorker, grow: Any, lazy: bool) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chord([grow.s(2, lazy=lazy), add.s(1)], total.s()).apply_async()
    worker.drain()
    assert result.get(timeout=5) == [-1, 1, 0, 100, 1, 100]


def test_a_run_that_is_repeated_adds_the_same_members(app: Any, worker: MiniWorker, grow: Any) -> None:
    add, total = app.tasks["kit.add"], app.tasks["kit.total"]
    result = chord([grow.s(1), add.s(1)], total.s()).apply_async()
    first, second = worker.lease()
    worker.runner.run(job_of(first))
    for delivery in (first, second):
        worker.commit(delivery, worker.runner.run(job_of(delivery)))
    worker.drain()
    assert result.get(timeout=5) == [-1, 1, 0, 100]


def test_only_members_of_a_chord_can_add_to_it(app: Any, worker: MiniWorker, grow: Any) -> None:
    result = grow.delay(1)
    worker.drain()
    with pytest.raises(ValueError, match="chord"):
        result.get(timeout=5)
