from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umbel.core.errors import EncodeError, OperationalError, StorageFull
from umbel.core.message import Message, Record, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease

NOW = 1_700_000_000.0


def message(id_: str, body: bytes = b"x" * 500) -> Message:
    return Message(id_, "t", "q", b"{}", body)


def publish(engine: Engine, *messages: Message) -> None:
    assert engine.broker is not None
    assert engine.broker.publish(messages, time.time()) == []


def ready(engine: Engine) -> int:
    assert engine.broker is not None
    return engine.broker.depth(["q"], time.time())["q"].ready


def raises_in_time(call: Callable[[], object], match: str) -> None:
    deadline = time.monotonic() + 10.0
    with pytest.raises(OperationalError, match=match):  # noqa: PT012 - until it is noticed
        while time.monotonic() < deadline:
            call()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{file}")
    yield engine
    engine.close()


def test_a_damaged_file_is_a_clear_error(engine: Engine, file: Path) -> None:
    publish(engine, *(message(f"{n}") for n in range(500)))
    engine.close()
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(os.urandom(file.stat().st_size - 4096))
    assert engine.broker is not None
    with pytest.raises(OperationalError, match=r"tasks\.db is damaged .*restore a backup"):
        engine.broker.publish([message("after")], time.time())
    with pytest.raises(OperationalError, match=r"tasks\.db is damaged"):
        engine.broker.lease(Lease(("q",), "me", 10, 30.0), time.time())


def test_a_file_that_is_cut_short_is_a_clear_error(engine: Engine, file: Path) -> None:
    publish(engine, *(message(f"{n}") for n in range(500)))
    engine.close()
    os.truncate(file, file.stat().st_size // 3)
    with pytest.raises(OperationalError, match=r"tasks\.db is damaged"):
        ready(engine)


def test_a_file_that_is_deleted_in_use_is_noticed_and_a_new_one_begun(engine: Engine, file: Path) -> None:
    publish(engine, message("old"))
    file.unlink()
    raises_in_time(lambda: ready(engine), "deleted or replaced while it was in use")
    publish(engine, message("new"))
    assert ready(engine) == 1
    assert file.exists()


def test_a_file_that_is_replaced_in_use_is_noticed_by_a_waiting_lease(engine: Engine, file: Path) -> None:
    assert engine.broker is not None
    other = open_engine(f"sqlite:///{file}.new")
    publish(other, message("new"), message("newer"))
    other.close()
    publish(engine, message("old"))
    lease = Lease(("q",), "me", 10, 30.0)
    assert len(engine.broker.lease(lease, time.time())) == 1
    Path(f"{file}.new").rename(file)
    with pytest.raises(OperationalError, match="The next call uses the new file"):
        engine.broker.lease(lease, time.time(), wait=10.0)
    # SQLite would write the old file's log into the new file.
    for _ in range(2):
        with pytest.raises(OperationalError, match=r"remove .*tasks\.db-wal and .*tasks\.db-shm"):
            engine.broker.lease(lease, time.time())
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink()
    assert [got.id for got in engine.broker.lease(lease, time.time())] == ["new", "newer"]


def test_the_log_behind_a_long_reader_shrinks_when_the_reader_has_ended(engine: Engine, file: Path) -> None:
    assert engine.broker is not None
    engine.broker.recover(Lease((), "me", 1, 30.0), NOW)  # a worker's process: those look after the log
    publish(engine, message("first"))
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM message").fetchone() == (1,)
    log = Path(f"{file}-wal")
    for n in range(20):
        publish(engine, message(f"{n}", os.urandom(4 << 20)))
    assert log.stat().st_size > 80 << 20
    reader.execute("ROLLBACK")
    reader.close()
    # The next commit copies the log into the file, the one after begins it anew and cuts it to its limit.
    publish(engine, message("next"))
    publish(engine, message("after"))
    assert log.stat().st_size <= 64 << 20
    assert ready(engine) == 23


def test_one_message_that_cannot_be_stored_is_refused_alone(engine: Engine) -> None:
    assert engine.broker is not None
    bad = [
        Message("a\ud800", "t", "q", b"", b""),
        Message("b", "t\ud800", "q", b"", b""),
        Message("c", "t", "q\ud800", b"", b""),
        Message("d", "t", "q", b"", b"", priority=2**63),
        Message("e", "t", "q", b"", b"", due=float("nan")),
    ]
    batch = [message("good"), *bad, message("fine")]
    refused = engine.broker.publish(batch, NOW)
    assert [refusal.index for refusal in refused] == [1, 2, 3, 4, 5]
    assert all(isinstance(refusal.error, EncodeError) for refusal in refused)
    for one in bad:
        assert [refusal.index for refusal in engine.broker.publish([one], NOW)] == [0]
    assert [got.id for got in engine.broker.lease(Lease(("q",), "me", 10, 30.0), NOW)] == ["good", "fine"]


def test_an_outcome_with_a_follow_up_that_cannot_be_stored_ends_and_the_follow_up_is_a_dead_letter(
    engine: Engine,
) -> None:
    assert engine.broker and engine.atomic and engine.store and engine.dead
    publish(engine, message("a"), message("b"))
    first, second = engine.broker.lease(Lease(("q",), "me", 10, 30.0), NOW)
    outcomes = [
        Settlement(first.tag, first.token, record=Record("a", "SUCCESS", b""), publish=(message("bad\ud800"),)),
        Settlement(second.tag, second.token, record=Record("b", "ODD\udfff", b""), publish=(message("next"),)),
    ]
    assert engine.atomic.commit("me", outcomes, NOW) == []
    states = {id_: record.state for id_, record in engine.store.get(["a", "b"], NOW).items()}
    assert states == {"a": "SUCCESS", "b": "ODD\\udfff"}
    assert [letter.message.id for letter in engine.dead.browse()] == ["bad\\ud800"]
    assert [got.id for got in engine.broker.lease(Lease(("q",), "me", 10, 30.0), NOW)] == ["next"]


def test_messages_of_ten_megabytes_travel_whole(engine: Engine) -> None:
    assert engine.broker and engine.atomic and engine.store
    bodies = [os.urandom(10_000_000) for _ in range(3)]
    publish(engine, *(message(f"{n}", body) for n, body in enumerate(bodies)))
    taken = engine.broker.lease(Lease(("q",), "me", 10, 30.0), time.time())
    assert [got.body for got in taken] == bodies
    ends = [Settlement(got.tag, got.token, record=Record(got.id, "SUCCESS", got.body)) for got in taken]
    assert engine.atomic.commit("me", ends, time.time()) == []
    assert engine.store.get(["2"], time.time())["2"].meta == bodies[2]


def test_where_bells_cannot_be_heard_a_waiting_lease_looks_by_itself(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mkfifo", "O_NONBLOCK"):
        monkeypatch.delattr(os, name)
    monkeypatch.delattr("select.poll")
    engine, other = open_engine(f"sqlite:///{file}"), open_engine(f"sqlite:///{file}")
    assert engine.broker and other.broker
    sender = threading.Timer(0.1, publish, (other, message("a")))
    sender.start()
    lease = Lease(("q",), "me", 10, 30.0)
    began = time.monotonic()
    assert [got.id for got in engine.broker.lease(lease, time.time(), 10.0)] == ["a"]
    assert time.monotonic() - began < 5.0
    sender.join()
    waker = threading.Timer(0.1, engine.broker.wake)
    waker.start()
    began = time.monotonic()
    assert engine.broker.lease(lease, time.time(), 10.0) == []
    assert time.monotonic() - began < 5.0
    waker.join()
    assert other.broker.recover(Lease(("q",), "heir", 10, 30.0), time.time()) == []
    assert len(other.broker.recover(Lease(("q",), "heir", 10, 30.0), time.time() + 60)) == 1
    engine.close()
    other.close()


def test_a_file_system_that_is_full_is_a_clear_error_and_work_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root and the right to mount")
    engine = open_engine(f"sqlite:///{folder}/tasks.db")
    try:
        stored = 0
        with pytest.raises(StorageFull, match=r"tasks\.db.*nothing of this call was stored"):  # noqa: PT012
            while stored < 20_000:
                publish(engine, *(message(f"{stored + n}") for n in range(100)))
                stored += 100
        assert ready(engine) == stored
        assert subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=False).returncode == 0
        publish(engine, message("after"))
        assert ready(engine) == stored + 1
    finally:
        engine.close()
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_failpoints_around_an_engine_fail_and_let_pass_as_they_are_told(file: Path) -> None:
    script = f"""
import time
from umbel.core.errors import OperationalError
from umbel.core.message import Message, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Lease
engine = open_engine("sqlite:///{file}")
def tried(call, *args):
    try:
        return call(*args)
    except OperationalError as error:
        return str(error).split()[1]
a = Message("a", "t", "q", b"", b"")
print(tried(engine.broker.publish, [a], 1.0), engine.broker.depth(["q"], 1.0)["q"].ready)
print(tried(engine.broker.publish, [a], 1.0), engine.broker.depth(["q"], 1.0)["q"].ready)
(got,) = engine.broker.lease(Lease(("q",), "me", 1, 9.0), 1.0)
print(tried(engine.atomic.commit, "me", [Settlement(got.tag, got.token)], 1.0), len(engine.broker.find(["a"], 1.0)))
print(tried(engine.atomic.commit, "me", [Settlement(got.tag, got.token)], 1.0) == [got.tag])
engine.close()
"""
    rules = "publish.before=raise@1;publish.after=raise@1;settle.after=raise@1;lease.after=sleep(0.01)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "UMBEL_FAILPOINTS": rules},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["publish.before 0", "publish.after 1", "settle.after 0", "True"]


def test_of_two_processes_whose_file_is_deleted_both_go_on_with_the_new_one(engine: Engine, file: Path) -> None:
    other = open_engine(f"sqlite:///{file}")
    publish(engine, message("old"))
    assert ready(other) == 1
    file.unlink()
    raises_in_time(lambda: ready(engine), "deleted or replaced")
    publish(engine, message("new"))
    raises_in_time(lambda: ready(other), "deleted or replaced")
    assert ready(other) == 1
    publish(other, message("newer"))
    assert ready(engine) == 2
    other.close()
