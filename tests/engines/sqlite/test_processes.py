from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umbel.core.message import Depth, Message, Part, Record, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease


def spawn(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def message(id_: str, queue: str = "q") -> Message:
    return Message(id_, "t", queue, b"{}", b"x" * 300)


def consume(engine: Engine, owner: str, limit: int) -> int:
    assert engine.broker is not None
    assert engine.atomic is not None
    taken = engine.broker.lease(Lease(("q",), owner, limit, 30.0), time.time())
    ends = [Settlement(item.tag, item.token, record=Record(item.id, "SUCCESS", b"")) for item in taken]
    assert engine.atomic.commit(owner, ends, time.time()) == []
    return len(taken)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def check_integrity(file: Path) -> None:
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_storm_of_sixteen_writing_processes_loses_nothing_and_raises_nothing(file: Path) -> None:
    def work(name: int) -> None:
        engine = open_engine(f"sqlite:///{file}")
        assert engine.broker is not None
        for n in range(30):
            engine.broker.publish([message(f"{name}-{n}")], time.time())
            consume(engine, f"owner{name}", 1)
        engine.close()

    children = [spawn(lambda name=n: work(name)) for n in range(16)]  # type: ignore[misc]
    assert [status(pid) for pid in children] == [0] * 16
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    assert engine.store is not None
    while consume(engine, "last", 100):
        pass
    ids = [f"{name}-{n}" for name in range(16) for n in range(30)]
    assert len(engine.store.get(ids, time.time())) == 480
    engine.close()
    check_integrity(file)


def test_children_of_a_process_that_has_published_publish_too(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    broker = engine.broker
    broker.publish([message("parent")], time.time())

    def work(name: int) -> None:
        for n in range(100):
            broker.publish([message(f"{name}-{n}")], time.time())

    children = [spawn(lambda name=n: work(name)) for n in range(4)]  # type: ignore[misc]
    broker.publish([message("parent again")], time.time())
    assert [status(pid) for pid in children] == [0] * 4
    assert broker.depth(["q"], time.time())["q"].ready == 402
    engine.close()
    check_integrity(file)


def test_a_publish_wakes_a_consumer_of_another_process_at_once(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    broker = engine.broker
    lease = Lease(("q",), "me", 10, 30.0)
    broker.lease(lease, time.time())
    go, told = os.pipe()

    def work() -> None:
        for n in range(30):
            os.read(go, 1)
            broker.publish([Message(f"{n}", "t", "q", b"", str(time.monotonic()).encode())], time.time())

    child = spawn(work)
    delays = []
    for _ in range(30):
        os.write(told, b"x")
        (got,) = broker.lease(lease, time.time(), 10.0)
        delays.append(time.monotonic() - float(got.body))
    assert status(child) == 0
    # A lost bell would cost a second; a poll some tens of milliseconds.
    assert sorted(delays)[15] < 0.02
    engine.close()


def test_the_leases_of_a_killed_process_come_back_before_their_deadline(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    broker = engine.broker
    broker.publish([message("a"), message("b")], time.time())

    def work() -> None:
        broker.lease(Lease(("q",), "victim", 2, 3600.0), time.time())
        signal.pause()

    child = spawn(work)
    until(lambda: broker.depth(["q"], time.time())["q"].leased == 2)
    heir = Lease(("q",), "heir", 10, 30.0)
    assert broker.recover(heir, time.time()) == []
    os.kill(child, signal.SIGKILL)
    status(child)
    taken = broker.recover(heir, time.time())
    assert [(item.id, item.former_owner, item.token) for item in taken] == [("a", "victim", 2), ("b", "victim", 2)]
    engine.close()


def test_killing_writers_in_the_middle_leaves_whole_outcomes_only(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    assert engine.store is not None
    broker = engine.broker
    ids = [f"{n}" for n in range(3000)]
    broker.publish([message(id_) for id_ in ids], time.time())

    def work(name: str) -> None:
        while consume(engine, name, 5):
            pass

    for n in range(5):
        before = broker.depth(["q"], time.time())["q"].ready
        child = spawn(lambda name=f"victim{n}": work(name))  # type: ignore[misc]
        until(lambda before=before: broker.depth(["q"], time.time())["q"].ready < before - 20)  # type: ignore[misc]
        os.kill(child, signal.SIGKILL)
        status(child)
    depth = broker.depth(["q"], time.time())["q"]
    # Each message is waiting, leased by the dead, or ended with its result: never two of these, never none.
    stored = engine.store.get(ids, time.time())
    held = broker.find(ids, time.time())
    assert stored.keys() | held.keys() == set(ids)
    assert not stored.keys() & held.keys()
    assert depth.leased == len(broker.recover(Lease(("q",), "heir", 1000, 30.0), time.time()))
    engine.close()
    check_integrity(file)


def test_of_many_processes_whose_tasks_join_one_publishes_the_body_though_some_are_killed(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    assert engine.store is not None
    broker, members = engine.broker, 600
    broker.publish([message(f"{n}") for n in range(members)], time.time())

    killed = file.with_name("killed")

    def work(name: str, seconds: float) -> None:
        assert engine.atomic is not None
        while (depth := broker.depth(["q"], time.time())["q"]) != Depth():
            if depth.ready < members - 400 and not killed.exists():
                time.sleep(0.005)
                continue
            now = time.time()
            taken = broker.recover(Lease(("q",), name, 5, seconds), now)
            taken += broker.lease(Lease(("q",), name, 5, seconds), now)
            ends = [
                Settlement(got.tag, got.token, parts=(Part("g", int(got.id), got.id.encode(), members, body),))
                for got in taken
            ]
            engine.atomic.commit(name, ends, now)

    body = message("body", "bodies")
    children = [spawn(lambda name=f"worker{n}": work(name, 3600.0)) for n in range(4)]  # type: ignore[misc]
    for n in range(2):
        until(lambda n=n: broker.depth(["q"], time.time())["q"].ready < members - 150 * (n + 1))  # type: ignore[misc]
        os.kill(children[n], signal.SIGKILL)
    killed.touch()
    assert [status(pid) for pid in children] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    bodies = Lease(("bodies",), "me", 10, 30.0)
    assert [got.id for got in broker.lease(bodies, time.time())] == ["body"]
    assert engine.store.joined(["g"]) == {"g": tuple(f"{n}".encode() for n in range(members))}
    engine.close()
    check_integrity(file)


def test_a_takeover_in_the_middle_of_an_extension_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the owner is frozen after it has looked and before it writes."""
    engines = [open_engine(f"sqlite:///{tmp_path}/tasks.db") for _ in range(2)]
    mine, heirs = (engine.broker for engine in engines)
    assert mine is not None
    assert heirs is not None
    mine.publish([Message("a", "t", "q", b"{}", b"")], time.time())
    assert mine.lease(Lease(("q",), "me", 1, 0.01), time.time())
    database: Any = vars(vars(mine)["_broker"])["_database"]
    read = database.read

    def take_over(*args: Any) -> Any:
        found = read(*args)
        monkeypatch.undo()
        assert heirs.recover(Lease(("q",), "heir", 1, 30.0), time.time() + 1)
        return found

    monkeypatch.setattr(database, "read", take_over)
    assert not mine.extend("me", 30.0, time.time())
    assert mine.extend("me", 30.0, time.time())
    for engine in engines:
        engine.close()
