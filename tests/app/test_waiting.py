from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from umbel.app import waiting
from umbel.app.waiting import Waiter, close_waiter, waiter_of
from umbel.core.errors import OperationalError
from umbel.core.message import Record
from umbel.engine.registry import open_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    engine = open_engine(f"sqlite:///{tmp_path}/results.db")
    yield engine
    close_waiter(engine.store)  # type: ignore[arg-type]
    engine.close()


def done(*ids: str) -> list[Record]:
    return [Record(task_id, "SUCCESS", b"{}") for task_id in ids]


def test_a_wait_ends_with_the_result(engine: Any) -> None:
    waiter = waiter_of(engine.store)
    threading.Timer(0.05, engine.store.put, (done("a"), time.time())).start()
    assert waiter.wait(["a"], 10)["a"].state == "SUCCESS"
    assert waiter.pending() == 0


def test_a_wait_for_what_is_there_already_ends_at_once(engine: Any) -> None:
    engine.store.put(done("a", "b"), time.time())
    assert set(waiter_of(engine.store).wait(["a", "b"], 0)) == {"a", "b"}


def test_a_wait_that_is_over_returns_what_is_ready(engine: Any) -> None:
    engine.store.put(done("a"), time.time())
    started = time.monotonic()
    assert set(waiter_of(engine.store).wait(["a", "never"], 0.1)) == {"a"}
    assert time.monotonic() - started < 5
    assert waiter_of(engine.store).pending() == 0


def test_unready_states_are_seen_but_end_nothing(engine: Any) -> None:
    seen: list[str] = []
    engine.store.put([Record("a", "PROGRESS", b"{}")], time.time())
    threading.Timer(0.05, engine.store.put, (done("a"), time.time())).start()
    waiter_of(engine.store).wait(["a"], 10, on_record=lambda record: seen.append(record.state))
    assert seen[0] == "PROGRESS"
    assert seen[-1] == "SUCCESS"


def test_many_threads_and_loops_wait_at_once(engine: Any, wait_until: Callable[..., None]) -> None:
    waiter = waiter_of(engine.store)
    found: list[str] = []

    def by_thread(name: str) -> None:
        found.extend(waiter.wait([name], 20))

    def by_loop(name: str) -> None:
        async def main() -> None:
            pair = await asyncio.gather(waiter.wait_async([name], 20), waiter.wait_async([f"{name}2"], 20))
            found.extend(key for one in pair for key in one)

        asyncio.run(main())

    names = [f"t{n}" for n in range(6)]
    loops = [f"l{n}" for n in range(3)]
    threads = [threading.Thread(target=by_thread, args=(name,)) for name in names]
    threads += [threading.Thread(target=by_loop, args=(name,)) for name in loops]
    for thread in threads:
        thread.start()
    wait_until(lambda: waiter.pending() == 12)
    # One after the other, so that the thread that watches leaves while others still wait.
    everything = [*names, *loops, *(f"{name}2" for name in loops)]
    for name in everything:
        engine.store.put(done(name), time.time())
        wait_until(lambda name=name: name in found or name.startswith("l"))
    for thread in threads:
        thread.join(20)
    assert sorted(found) == sorted(everything)
    assert waiter.pending() == 0


def test_a_follower_takes_over_when_the_watching_thread_gives_up(engine: Any, wait_until: Callable[..., None]) -> None:
    waiter = waiter_of(engine.store)
    found: list[dict[str, Record]] = []
    leader = threading.Thread(target=lambda: found.append(waiter.wait(["never"], 0.3)))
    leader.start()
    wait_until(lambda: waiter.pending() == 1)
    follower = threading.Thread(target=lambda: found.append(waiter.wait(["late"], 20)))
    follower.start()
    leader.join(10)
    engine.store.put(done("late"), time.time())
    follower.join(10)
    assert [set(one) for one in found] == [set(), {"late"}]


def test_a_callback_comes_from_the_waiters_thread_and_may_fail(engine: Any, wait_until: Callable[..., None]) -> None:
    waiter = waiter_of(engine.store)
    names: list[str] = []

    def told(ticket: Any) -> None:
        names.append(threading.current_thread().name)
        raise RuntimeError("a callback that fails harms nobody")

    waiter.call(["a"], told)
    waiter.call(["b"], told)
    engine.store.put(done("a"), time.time())
    wait_until(lambda: len(names) == 1)
    engine.store.put(done("b"), time.time())
    wait_until(lambda: len(names) == 2)
    assert set(names) == {"umbel-results"}


def test_a_discarded_callback_never_comes(engine: Any) -> None:
    waiter = waiter_of(engine.store)
    told: list[Any] = []
    ticket = waiter.call(["a"], told.append)
    waiter.discard(ticket)
    engine.store.put(done("a", "b"), time.time())
    assert set(waiter.wait(["b"], 10)) == {"b"}
    assert told == []


def test_an_abandoned_coroutine_leaves_nothing_behind(engine: Any) -> None:
    waiter = waiter_of(engine.store)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waiter.wait_async(["never"]), 0.05)

    asyncio.run(main())
    assert waiter.pending() == 0


class DeafWatch:
    """A watch whose bell is broken: no hint ever comes."""

    def add(self, ids: Collection[str]) -> None: ...

    def discard(self, ids: Collection[str]) -> None: ...

    def wait(self, timeout: float) -> bool:
        return threading.Event().wait(timeout)

    def wake(self) -> None: ...

    def close(self) -> None: ...


class DeafStore:
    """A store of its own making: results can be put, no hint is given, and it may be down."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.down = False
        self.asked = 0

    def watch(self) -> DeafWatch:
        return DeafWatch()

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        self.asked += 1
        if self.down:
            raise OperationalError("the store is down")
        return {task_id: self.records[task_id] for task_id in ids if task_id in self.records}


def test_a_lost_hint_costs_a_moment_only() -> None:
    store: Any = DeafStore()
    threading.Timer(0.1, store.records.update, ({"a": done("a")[0]},)).start()
    started = time.monotonic()
    assert set(Waiter(store).wait(["a"], 20)) == {"a"}
    assert time.monotonic() - started < 3
    assert store.asked < 20


def test_a_dead_store_ends_every_wait_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.3)
    store: Any = DeafStore()
    store.down = True
    waiter = Waiter(store)
    with pytest.raises(OperationalError, match="down"):
        waiter.wait(["a"])

    async def main() -> None:
        with pytest.raises(OperationalError, match="down"):
            await waiter.wait_async(["a"])

    asyncio.run(main())
    assert waiter.pending() == 0


def test_a_store_that_recovers_in_time_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = DeafStore()
    store.records["a"] = done("a")[0]
    store.down = True
    threading.Timer(0.2, setattr, (store, "down", False)).start()
    assert set(Waiter(store).wait(["a"], 20)) == {"a"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_waits_by_itself(engine: Any, tmp_path: Path) -> None:
    waiter = waiter_of(engine.store)
    waiter.call(["parent"], lambda ticket: None)  # a thread is running
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mine = waiter_of(engine.store)
            engine.store.put(done("child"), time.time())
            status = 0 if mine is not waiter and "child" in mine.wait(["child"], 10) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.store.put(done("parent2"), time.time())
    assert set(waiter.wait(["parent2"], 10)) == {"parent2"}


def test_idle_waiters_of_closed_stores_do_not_gather(tmp_path: Path) -> None:
    for _ in range(waiting.MAX_WAITERS * 3):
        waiter_of(DeafStore())  # type: ignore[arg-type]
    assert len(waiting._waiters) <= waiting.MAX_WAITERS
