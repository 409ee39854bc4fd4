"""A small laboratory: a broker, real workers, producers, signals, and the checker at the end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.process.checker import FINAL_STATES, Final, Rules, Verdict, check
from tests.process.deployments import Deployment, on_sqlite
from tests.process.jobs import make_app
from tests.process.journal import Journal
from tests.process.launcher import Launcher
from tests.servers.process import Keeper
from umbel.core.errors import OperationalError

ROOT = Path(__file__).resolve().parents[2]
#: Short leases: what a frozen worker holds comes back soon.
SETTINGS: dict[str, Any] = {"worker_lease": 6.0, "worker_heartbeat": 1.0}
#: Executors lead groups of their own; the consumer stays in the supervisor's.
_ROUTINE = re.compile(r" succeeded in |\] received$|^  \. ")
_READY = re.compile(r" ready\.$", re.MULTILINE)


def wait(condition: Callable[[], object], seconds: float = 15.0, what: str = "the condition") -> None:
    """Return as soon as the condition holds; fail at the deadline, saying what never came."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def alive(pid: int) -> bool:
    """Tell whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Worker:
    """One `umbel worker` in a session of its own, and the processes it is made of."""

    def __init__(self, lab: Lab, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.lab = lab
        self.name = name
        self.log = lab.folder / f"{name}.log"
        self.log.touch()
        self.process = Launcher.mine().launch(
            arguments=["-A", "tests.process.worker_app", "worker", "-n", name, *arguments],
            environment=environment,
            folder=str(lab.folder),
            log=str(self.log),
        )
        self.pid = self.process.pid
        Keeper.tell(f"pid {self.pid}")

    def text(self) -> str:
        """Return the log so far."""
        return self.log.read_text(errors="replace")

    def said(self, words: str) -> bool:
        """Tell whether the log contains these words."""
        return words in self.text()

    def wait_ready(self, seconds: float = 20.0) -> Worker:
        """Wait until the worker says that it is ready."""
        wait(lambda: _READY.search(self.text()) or self.process.poll() is not None, seconds, f"{self.name} ready")
        assert self.process.poll() is None, f"{self.name} ended at once: {self.text()[-3000:]}"
        return self

    def executors(self) -> list[int]:
        """Return the executors that are up."""
        return [pid for pid in children(self.pid) if _group(pid) == pid and alive(pid)]

    def consumer(self) -> int:
        """Return the consumer, 0 when there is none now."""
        # An executor that has just been forked is in the same group, but it has one thread.
        return next((pid for pid in children(self.pid) if _group(pid) == self.pid and _threads(pid) > 1), 0)

    def everybody(self) -> list[int]:
        """Return every process of the worker."""
        return [self.pid, *children(self.pid)]

    def kill_executor(self, rng: random.Random) -> bool:
        """SIGKILL one executor; False when there was none at this moment."""
        found = self.executors()
        if not found:
            return False
        pid = rng.choice(found)
        self.lab.journal.write("kill", pids=[pid])
        return _kill(pid)

    def kill_consumer(self) -> bool:
        """SIGKILL the consumer, and with it its session."""
        pid = self.consumer()
        if not pid:
            return False
        self.lab.journal.write("kill", pids=children(self.pid), session=True)
        return _kill(pid)

    def kill(self) -> None:
        """SIGKILL the supervisor; the kernel and closed sockets end the others."""
        pids = self.everybody()
        self.lab.journal.write("kill", pids=pids, session=True)
        _signal(self.pid, signal.SIGKILL)
        self.process.wait(10)
        wait(lambda: not any(map(alive, pids)), 10, "the children of a killed supervisor to end")

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal to the supervisor."""
        _signal(self.pid, signum)

    def wait_exit(self, seconds: float = 20.0) -> int:
        """Wait until the worker has ended; return its status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s") from None

    def clean_up(self) -> None:
        """Kill whatever is left of it."""
        pids = self.everybody() if self.process.poll() is None else []
        for pid in [*pids, self.pid]:
            for kill in (os.killpg, os.kill):
                try:
                    if kill is os.kill and not alive(pid):
                        continue
                    kill(pid, signal.SIGCONT)
                    kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
        if self.process.poll() is None:
            self.process.wait(10)


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) if alive(pid) else 0
    except OSError:
        return 0


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _kill(pid: int) -> bool:
    """Kill a process and wait for its death, which comes a moment after the signal."""
    sent = _signal(pid, signal.SIGKILL)
    wait(lambda: not alive(pid), 5, f"the death of process {pid}")
    return sent


def _signal(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


class Lab:
    """A folder with a queue, a journal, and the workers of one test."""

    def __init__(self, folder: Path, seed: int, deployment: Deployment | None = None) -> None:
        self.folder = folder
        self.file = folder / "queue.db"
        self.deployment = deployment or on_sqlite(folder)
        self.url = self.deployment.broker
        #: Those of every worker and producer; a test may add to them before it starts any.
        self.settings = SETTINGS if deployment is None else {**SETTINGS, **deployment.overrides}
        self.journal = Journal(folder / "journal.jsonl")
        self.seed = seed
        self.rng = random.Random(seed)
        self.workers: list[Worker] = []
        self.app = make_app(self.url, self.settings)
        self.dead_ids: list[str] = []
        print(f"seed {seed}, folder {folder}")

    # --- workers -----------------------------------------------------------------------------------------------

    def environment(self, settings: dict[str, Any] | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a process of this lab."""
        return {
            **os.environ,
            "LAB_URL": self.url,
            "LAB_JOURNAL": str(self.journal.path),
            "LAB_SETTINGS": json.dumps({**self.settings, **(settings or {})}),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "PYTHONFAULTHANDLER": "1",
            **more,
        }

    def worker(
        self, *arguments: str, settings: dict[str, Any] | None = None, ready: bool = True, **environment: str
    ) -> Worker:
        """Start a worker; by default with two executors, and wait until it is ready."""
        name = f"w{len(self.workers) + 1}"
        if "-c" not in arguments and "-P" not in arguments:
            arguments = ("-c", "2", *arguments)
        if "-l" not in arguments:
            arguments = ("-l", "WARNING", *arguments)
        if ready and arguments[arguments.index("-l") + 1] == "WARNING":
            arguments = tuple("INFO" if argument == "WARNING" else argument for argument in arguments)
        worker = Worker(self, name, arguments, self.environment(settings, **environment))
        self.workers.append(worker)
        return worker.wait_ready() if ready else worker

    def faulty_worker(self, points: str, process: str, settings: dict[str, Any] | None = None) -> Path:
        """Start a worker with one executor that meets a fault once; return the file that is there when it has."""
        fired = self.folder / "fired"
        self.worker(
            *("-c", "1"),
            settings=settings,
            ready=False,
            UMBEL_FAILPOINTS=points,
            UMBEL_FAILPOINTS_IN=process,
            UMBEL_FAILPOINTS_ONCE=str(fired),
        )
        return fired

    def python(self, code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process of this lab that runs `code` with `lab_app` at hand."""
        prelude = "import os, sys, json\nfrom tests.process import journal\nfrom tests.process.worker_app import app\n"
        process = subprocess.Popen(
            [sys.executable, "-c", prelude + code, *arguments],
            cwd=self.folder,
            env=self.environment(None, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        Keeper.tell(f"pid {process.pid}")
        return process

    # --- producers ---------------------------------------------------------------------------------------------

    def send(self, task: str, *args: Any, **options: Any) -> str:
        """Send one task, journalled before and after; return its id."""
        from umbel.app.ids import new_id

        id = options.pop("task_id", None) or new_id()
        self.journal.write("intended", id)
        try:
            self.app.tasks[task].apply_async(args, task_id=id, **options)
        except Exception as error:
            self.journal.write("error", id, error=repr(error))
            raise
        self.journal.write("returned", id)
        return id

    def send_many(self, task: str, count: int, *args: Any, **options: Any) -> list[str]:
        """Send some tasks."""
        return [self.send(task, *args, **options) for _ in range(count)]

    def load(self, task: str, *, shortest: float, longest: float, waiting: int = 60, patient: bool = False) -> Load:
        """Keep about `waiting` tasks queued until the load is stopped; a patient one goes on when sending fails."""
        return Load(self, task, (shortest, longest), waiting, patient)

    # --- faults ------------------------------------------------------------------------------------------------

    @contextmanager
    def cut(self, what: str = "") -> Iterator[None]:
        """Say in the journal that the broker, or the way to it, is away while this lasts."""
        self.journal.write("cut", fault=what)
        try:
            yield
        finally:
            self.journal.write("mended")

    def random_kills(self, count: int, kill: Callable[[], bool]) -> None:
        """Kill at random moments, each time after somebody has started a task since the last time."""
        for _ in range(count):
            enough = self.journal.count("start") + 1
            wait(lambda: self.journal.count("start") >= enough, 20, "progress between kills")  # noqa: B023
            time.sleep(self.rng.uniform(0.0, 0.25))
            wait(kill, 10, "a process to kill")

    def wait_progress(self, count: int = 10, seconds: float = 30.0) -> None:
        """Wait until so many more tasks have ended."""
        before = self.journal.count("end")
        wait(lambda: self.journal.count("end") >= before + count, seconds, f"{count} more tasks to end")

    # --- looking -----------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """How many messages are ready, scheduled or leased."""
        # Not every broker can list its queues.
        names = [] if self.app.engine.caps.counts else ["celery"]
        return sum(d.ready + d.scheduled + d.leased for d in self.app.broker.depth(names, time.time()).values())

    def wait_started(self, id: str, seconds: float = 15.0) -> None:
        """Wait until a run of this id has said that it starts."""
        wait(lambda: id in self.journal.ids("start"), seconds, f"the start of {id}")

    def wait_states(self, ids: Iterable[str], seconds: float = 20.0) -> dict[str, Final]:
        """Wait until every id has a final state or is a dead letter; return what they are."""
        wanted = list(ids)
        found: dict[str, Final] = {}

        def all_final() -> bool:
            found.update(self.finals([id for id in wanted if id not in found]))
            for id in [id for id, final in found.items() if final.state not in FINAL_STATES and not final.dead]:
                del found[id]
            return len(found) == len(set(wanted))

        try:
            wait(all_final, seconds, "final states")
        except AssertionError:
            missing = [id for id in wanted if id not in found]
            raise AssertionError(f"{len(missing)} have no final state after {seconds:g} s: {missing[:5]}") from None
        # State and dead letter are read one after the other: an end between the two was seen by half.
        return self.finals(wanted)

    def finals(self, ids: Sequence[str]) -> dict[str, Final]:
        """Read the states and dead letters of these ids."""
        now = time.time()
        store = self.app.store
        assert store is not None
        dead = self.dead()
        finals: dict[str, Final] = {id: Final(dead=reason) for id, reason in dead.items() if id in set(ids)}
        for start in range(0, len(ids), 500):
            for id, record in store.get(ids[start : start + 500], now).items():
                meta = json.loads(record.meta)
                result = meta.get("result")
                error = result.get("exc_type", "") if record.state == "FAILURE" and isinstance(result, dict) else ""
                finals[id] = Final(record.state, result, error, dead.get(id, ""))
        return finals

    def dead(self) -> dict[str, str]:
        """Return the reasons of the dead letters, by id."""
        letters = self.app.dead
        assert letters is not None
        found: dict[str, str] = {}
        after = 0
        while page := letters.browse(after=after, limit=500):
            found.update({letter.message.id: letter.reason or "no reason" for letter in page})
            after = page[-1].number
        return found

    def left(self) -> int:
        """How many messages are ready, scheduled or held, counted without umbel where that can be done."""
        return self.waiting() if self.deployment.count is None else self.deployment.count()

    def drain(self, seconds: float = 30.0) -> None:
        """Wait until no message waits or is held."""
        try:
            wait(lambda: self.left() == 0, seconds, "the queues to be drained")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.left()} messages are left; {self.deployment.tell()}") from None
        self.journal.write("drained")

    def drain_but(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many messages are left."""
        wait(lambda: self.waiting() == count, seconds, f"all messages but {count} to be gone")

    def verdict(self, rules: Rules | None = None) -> Verdict:
        """Check the whole history."""
        ids = list(dict.fromkeys(self.journal.ids("intended")))
        rules = replace(rules or Rules(), fenced=self.deployment.fenced, lost_acks=self.deployment.lost_acks)
        verdict = check(self.journal.events(), self.finals(ids), rules, left=self.left())
        print(verdict)
        return verdict

    def prove(self, rules: Rules | None = None, seconds: float = 30.0) -> Verdict:
        """Drain, check, and fail with what was broken."""
        self.drain(seconds)
        verdict = self.verdict(rules)
        assert verdict.violations == [], str(verdict)
        return verdict

    def close(self) -> None:
        """End every process, and print what helps to understand a failure."""
        for worker in self.workers:
            worker.clean_up()
        self.app.close()
        for worker in self.workers:
            print(f"--- {worker.name} (pid {worker.pid}, status {worker.process.poll()}) ---")
            lines = [line for line in worker.text().splitlines() if not _ROUTINE.search(line)]
            print("\n".join(lines)[-6000:])


class Load:
    """A producer thread that keeps some tasks queued."""

    def __init__(self, lab: Lab, task: str, span: tuple[float, float], waiting: int, patient: bool) -> None:
        self._lab = lab
        self._task = task
        self._span = span
        self._most = waiting
        self._patient = patient
        self._rng = random.Random(lab.seed + 1)
        self._stopping = threading.Event()
        self.ids: list[str] = []
        #: How many calls failed, and how long the slowest call took.
        self.failed = 0
        self.slowest = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._send()
                except OperationalError:
                    if not self._patient:
                        raise
                    self.failed += 1
                self._stopping.wait(0.01)
        except BaseException as error:
            self.failure = error

    def _send(self) -> None:
        try:
            enough = self._lab.waiting() >= self._most
        except OperationalError:
            enough = False
        if enough:
            return
        for _ in range(20):
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                self.ids.append(self._lab.send(self._task, round(self._rng.uniform(*self._span), 4)))
            finally:
                self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        self._thread.join(20)
        assert self.failure is None, f"the producer failed: {self.failure!r}"
        assert not self._thread.is_alive(), "the producer is stuck"
