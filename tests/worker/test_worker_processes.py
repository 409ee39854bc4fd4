"""Workers as processes: every pool, fresh processes instead of forks, recycling, and the signals of their lives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_kit import Crewed, most_common, wait
from umbel.core.errors import TimeLimitExceeded

HOG = """
lock = threading.Lock()

def hog():
    while True:
        with lock:
            time.sleep(0.01)

threading.Thread(target=hog, daemon=True).start()

@app.task
def locked():
    with lock:
        return os.getpid()
"""

SIGNALS = """
for name in ("celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready", "worker_process_init",
             "worker_process_shutdown", "worker_shutting_down", "worker_shutdown", "task_received", "task_prerun",
             "task_postrun", "task_success", "worker_before_create_process"):
    def handler(sender=None, name=name, **more):
        note(name)
    getattr(signals, name).connect(handler, weak=False)
"""


@pytest.fixture
def crewed(tmp_path: Path) -> Iterator[Crewed]:
    made = Crewed(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_a_pool_runs_limits_and_stops_as_it_should(crewed: Crewed, pool: str) -> None:
    pids = [crewed.send("pid") for _ in range(10)]
    awaited = [crewed.send("awork", 0.01) for _ in range(5)]
    careful = crewed.send("careful", soft_time_limit=0.2)
    late = crewed.send("work", 30.0, time_limit=0.3)
    worker = crewed.worker("-P", pool, "-c", "2")
    found = {result.get(timeout=15) for result in pids}
    assert [result.get(timeout=15) for result in awaited] == ["awaited"] * 5
    assert careful.get(timeout=15) == "cleaned up"
    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=15)
    assert len(found) <= (2 if pool == "prefork" else 1)
    assert worker.process.pid not in found
    running = crewed.send("work", 0.3, "last")
    wait(lambda: [note for note in crewed.notes("begin") if note["name"] == "last"], what="the last to run")
    assert worker.stop() == 0
    assert running.get(timeout=1) == "last"
    assert "INTERNAL ERROR" not in worker.log()


def test_a_cold_stop_ends_a_worker_whose_thread_does_not(crewed: Crewed) -> None:
    worker = crewed.worker("-P", "threads", "-c", "1")
    running = crewed.send("work", 30.0)
    wait(lambda: crewed.notes("begin"), what="the task to run")
    started = time.monotonic()
    worker.stop(signal.SIGQUIT, 10.0)
    assert time.monotonic() - started < 5.0
    assert running.state == "FAILURE"


@pytest.mark.parametrize("how", ["asked for", "needed"])
def test_fresh_processes_do_what_forks_do(crewed: Crewed, how: str) -> None:
    crewed.write(HOG)
    results = [crewed.send("locked") for _ in range(40)]
    arguments = ["--pool-start-method", "spawn"] if how == "asked for" else []
    worker = crewed.worker("-c", "2", *arguments)
    pids = {result.get(timeout=25) for result in results}
    assert 1 <= len(pids) <= 2
    assert ("have started" in worker.log()) is (how == "needed")
    assert worker.stop() == 0


def test_executors_that_have_served_their_tasks_are_replaced_and_nothing_is_lost(crewed: Crewed) -> None:
    results = [crewed.send("pid") for _ in range(14)]
    worker = crewed.worker("-c", "2", "--max-tasks-per-child", "3")
    pids = [result.get(timeout=20) for result in results]
    assert len(set(pids)) >= 5
    assert most_common(pids) <= 3
    assert "is replaced after 3 tasks" in worker.log()
    assert worker.stop() == 0


def test_executors_that_have_grown_are_replaced_and_nothing_is_lost(crewed: Crewed) -> None:
    results = [crewed.send("pid") for _ in range(5)]
    worker = crewed.worker("-c", "1", "--max-memory-per-child", "1000")
    assert len({result.get(timeout=20) for result in results}) == 5
    assert "KiB resident" in worker.log()
    assert worker.stop() == 0


def test_short_tasks_do_not_wait_behind_a_long_one(crewed: Crewed) -> None:
    for name in ("one", "two"):
        crewed.worker("-c", "1", name=name)
    long = crewed.send("work", 20.0, "long")
    wait(lambda: crewed.notes("begin"), what="the long one to run")
    short = [crewed.send("work", 0.1, f"short {number}") for number in range(7)]
    started = time.monotonic()
    for result in short:
        result.get(timeout=10)
    assert time.monotonic() - started < 4.0
    assert not long.ready()


def test_signals_are_sent_in_the_processes_that_they_belong_to(crewed: Crewed) -> None:
    crewed.write(SIGNALS)
    worker = crewed.worker("-c", "2")
    results = [crewed.send("pid") for _ in range(3)]
    pids = {result.get(timeout=15) for result in results}
    assert worker.stop() == 0

    def where(name: str) -> list[int]:
        return [note["pid"] for note in crewed.notes(name)]

    main = worker.process.pid
    for name in ("celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready", "worker_shutting_down"):
        assert where(name) == [main], name
    assert where("worker_shutdown") == [main]
    assert where("worker_before_create_process") == [main] * 2
    executors = where("worker_process_init")
    assert len(set(executors)) == len(executors) == 2
    assert main not in executors
    assert sorted(where("worker_process_shutdown")) == sorted(executors)
    assert pids <= set(executors)
    for name in ("task_prerun", "task_postrun", "task_success"):
        assert len(where(name)) == 3
        assert set(where(name)) == pids, name
    received = where("task_received")
    assert len(received) >= 3
    assert len(set(received)) == 1
    assert not set(received) & {main, *executors}
    assert next(note["parent"] for note in crewed.notes("task_received")) == main


WITHOUT_FORK = """
import os, signal, sys
for module, names in ((os, ("fork", "setpgid", "getuid")), (signal, ("SIGURG", "SIGALRM", "SIGHUP", "SIGQUIT"))):
    for name in names:
        delattr(module, name)
for name in ("resource", "fcntl", "pwd", "grp"):
    sys.modules[name] = None
import umbel.worker.worker
from umbel.app.app import Umbel
from umbel.core.errors import NotSupportedError
for pool in ("prefork", "threads", "solo"):
    try:
        umbel.worker.worker.Worker(Umbel("x", broker="memory://"), pool=pool)
    except NotSupportedError as error:
        print("told", error)
"""


def test_where_nothing_can_fork_a_worker_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_FORK], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.count("told") == 3
    assert "WSL" in done.stdout


# --- a broker that is away -----------------------------------------------------------------------------------


def test_a_broker_that_is_wrong_at_the_start_ends_the_worker_with_one_clear_line(crewed: Crewed) -> None:
    data = crewed.folder / "data"
    data.rename(crewed.folder / "away")
    data.write_text("not a directory")
    worker = crewed.worker("-c", "1", ready=False)
    assert worker.process.wait(20) != 0
    told = [line for line in worker.log().splitlines() if "queue.db" in line and "cannot" in line]
    assert len(told) == 1
    assert "Traceback" not in worker.log()


def test_a_worker_outlives_a_broker_that_goes_away_and_comes_back(crewed: Crewed) -> None:
    data, away = crewed.folder / "data", crewed.folder / "away"
    worker = crewed.worker("-c", "1")
    assert isinstance(crewed.send("pid").get(timeout=15), int)
    crewed.app.close()
    data.rename(away)
    data.write_text("not a directory")
    wait(lambda: worker.log().count("cannot create") >= 2, what="two complaints")
    data.unlink()
    away.rename(data)
    lines = [line for line in worker.log().splitlines() if "trying again" in line]
    assert isinstance(crewed.send("pid").get(timeout=15), int)
    wait(lambda: "can be used again" in worker.log(), what="the worker to say so")
    assert "Traceback" not in worker.log()
    assert len(lines) <= 4
    assert worker.stop() == 0
