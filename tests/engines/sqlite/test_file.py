from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from umbel.core.errors import EngineBusy, ImproperlyConfigured, OperationalError, StorageFull
from umbel.core.message import Message
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease

BODY = b"x" * 500


def message(id_: str, **fields: float) -> Message:
    return Message(id_, "t", "q", b"{}", BODY, **fields)  # type: ignore[arg-type]


def publish(engine: Engine, *ids: str) -> None:
    assert engine.broker is not None
    engine.broker.publish([message(id_) for id_ in ids], time.time())


def depth(engine: Engine) -> int:
    assert engine.broker is not None
    return engine.broker.depth(["q"], time.time())["q"].ready


def in_child(work: object) -> int:
    """Run `work` in a fork; return its exit status, 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_integrity(file: Path) -> None:
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def test_every_file_is_its_owners_alone(file: Path) -> None:
    old = os.umask(0)
    try:
        engine = open_engine(f"sqlite:///{file}")
        publish(engine, "a")
        assert engine.broker is not None
        engine.broker.lease(Lease(("q",), "me", 1, 30.0), time.time())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        assert modes == {
            "tasks.db": 0o600,
            "tasks.db-wal": 0o600,
            "tasks.db-shm": 0o600,
            "tasks.db-bells": 0o700,
        }
        (bell,) = (file.parent / "tasks.db-bells").iterdir()
        assert stat.S_IMODE(bell.stat().st_mode) == 0o600
        engine.close()
        assert list((file.parent / "tasks.db-bells").iterdir()) == []
    finally:
        os.umask(old)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://host/x.db", "no host"),
        ("sqlite:///x.db?sync=full", "synchronous"),
        ("sqlite:///x.db?synchronous=off", "normal, full"),
        ("sqlite:///x.db?busy_timeout=soon", "must be a number"),
    ],
)
def test_a_url_that_does_not_fit_says_what_to_write(url: str, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        open_engine(url)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/not/there.db")
    with pytest.raises(OperationalError, match="not does not exist; create it"):
        publish(engine, "a")


def test_a_file_of_a_newer_umbel_is_refused_and_left_alone(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    publish(engine, "a")
    engine.close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ImproperlyConfigured, match="newer umbel"):
        publish(engine, "b")


def test_a_database_of_another_program_is_refused_and_left_alone(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ImproperlyConfigured, match="another program"):
        publish(open_engine(f"sqlite:///{file}"), "a")


def test_what_is_no_database_is_named(file: Path) -> None:
    file.write_bytes(b"these are somebody's notes, not a database" * 100)
    with pytest.raises(OperationalError, match=r"tasks\.db is not a SQLite database"):
        publish(open_engine(f"sqlite:///{file}"), "a")


def test_a_full_disk_is_a_clear_error_and_work_resumes(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    publish(engine, "before")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        stored = 1
        with pytest.raises(StorageFull, match=r"tasks\.db"):  # noqa: PT012 - until it is full
            while True:
                publish(engine, *(f"{stored + n}" for n in range(10)))
                stored += 10
        assert depth(engine) == stored

    assert in_child(fill) == 0
    left = depth(engine)
    publish(engine, "after")
    assert depth(engine) == left + 1
    engine.close()
    check_integrity(file)


def test_a_file_that_may_not_be_written_is_a_clear_error(file: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    engine = open_engine(f"sqlite:///{file}")
    publish(engine, "a")
    file.chmod(0o644)
    for folder in file.parents:
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/tmp"):
            folder.chmod(0o755)

    def write() -> None:
        os.setuid(65534)
        with pytest.raises(OperationalError, match="check the owner"):
            publish(engine, "b")

    assert in_child(write) == 0
    assert depth(engine) == 1


def test_a_writer_that_holds_on_too_long_is_reported_after_the_deadline(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}?busy_timeout=0.05")
    publish(engine, "a")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(EngineBusy, match="busy_timeout"):
        publish(engine, "b")
    other.execute("ROLLBACK")
    other.close()
    publish(engine, "c")
    assert depth(engine) == 2


def test_what_is_due_next_month_costs_a_lease_nothing(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    assert engine.broker is not None
    now = time.time()
    later = [message(f"{n}", due=now + 86400 * 30 + n) for n in range(20_000)]
    engine.broker.publish(later, now)
    lease = Lease(("q",), "me", 100, 30.0)
    engine.broker.lease(lease, now)
    began = time.perf_counter()
    for _ in range(100):
        assert engine.broker.lease(lease, now) == []
    assert (time.perf_counter() - began) / 100 < 0.002
    connection = sqlite3.connect(file)
    (plan,) = connection.execute("EXPLAIN QUERY PLAN SELECT due FROM scheduled ORDER BY due LIMIT 1").fetchall()
    assert "TEMP B-TREE" not in plan[3]
    connection.close()
    engine.close()


def test_many_threads_publish_and_lease_without_an_error(file: Path) -> None:
    engine = open_engine(f"sqlite:///{file}")
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for n in range(40):
                publish(engine, f"{name}-{n}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert depth(engine) == 240
    engine.close()


def test_a_wake_that_comes_before_the_first_wait_ends_it(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/queue.db")
    assert engine.broker is not None
    engine.broker.wake()
    began = time.monotonic()
    assert engine.broker.lease(Lease(("q",), "me", 1, 30.0), time.time(), 5.0) == []
    assert time.monotonic() - began < 4
    engine.close()
