"""A fleet of both kinds on one broker: a Celery worker, an umbel worker, and a producer of each."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.environment import PYTHON
from tests.interop.fleet_tasks import define
from tests.interop.settings_of_both import settings
from tests.servers.process import Keeper, end_process
from umbel import Exchange, Queue, Umbel
from umbel.core.message import Delivery, Settlement
from umbel.engine.seam import Lease

HERE = Path(__file__).resolve().parent
DEADLINE = 20.0


def wait_for(condition: Callable[[], Any], what: Callable[[], str] | str, seconds: float = DEADLINE) -> Any:
    """Return the first true value of the condition; fail at the deadline, saying what never came."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
    return value


@dataclass(frozen=True)
class Run:
    """One line of the journal: which side ran what."""

    word: str
    id: str
    side: str
    at: float
    pid: int


class Process:
    """A worker of either side, with its log."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        Keeper.tell(f"pid {self.process.pid}")

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> Process:
        """Wait until it says that it takes messages."""
        wait_for(
            lambda: " ready." in self.text() or self.process.poll() is not None,
            lambda: f"{self.name} to be ready:\n{self.text()[-3000:]}",
            30,
        )
        assert self.process.poll() is None, f"{self.name} ended:\n{self.text()[-3000:]}"
        return self

    def kill(self) -> None:
        """Kill it and all its processes at once."""
        for pid in (*_below(self.process.pid), self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)
        Keeper.tell(f"gone {self.process.pid}")

    def stop(self) -> None:
        """Let it finish what runs."""
        end_process(self.process, signal.SIGTERM, 10)


def _below(pid: int) -> list[int]:
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in (*_below(child), child)]


class CeleryProducer:
    """A process with Celery in it that evaluates what it is asked (see celery_answers.py)."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(PYTHON), str(HERE / "celery_answers.py")],
                cwd=log.parent,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        Keeper.tell(f"pid {self.process.pid}")
        self.ready = False

    def ask(self, expression: str, seconds: float = 30.0) -> Any:
        """Return the value of a Python expression, evaluated beside Celery."""
        if not self.ready:
            self._answer(40.0)
            self.ready = True
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(expression).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds: float) -> Any:
        assert self.process.stdout is not None
        there, _, _ = select.select([self.process.stdout], [], [], seconds)
        assert there, f"the Celery producer does not answer:\n{self.log.read_text()[-2000:]}"
        line = self.process.stdout.readline()
        assert line, f"the Celery producer ended:\n{self.log.read_text()[-2000:]}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        end_process(self.process, signal.SIGKILL, 10)
        self.process.stdout.close()


class Fleet:
    """Everything of one broker. `umbel` is the app of this process; `celery` answers from another one."""

    def __init__(self, kind: str, broker: str, results: str, folder: Path, **more: str) -> None:
        self.kind, self.broker, self.results, self.folder, self.more = kind, broker, results, folder, more
        self.journal = folder / "journal.txt"
        self.journal.touch()
        self.umbel = Umbel("umbel_side", set_as_current=False)
        self.umbel.conf.update(settings(Queue, Exchange, self.environment("umbel")))
        define(self.umbel)
        self.celery = CeleryProducer(self.environment("celery"), folder / "celery-producer.log")
        self.processes: list[Process] = []
        self.celery_worker = self.start("celery", "mixed,to_celery,topic_to_celery,direct_to_celery,fan_to_celery")
        self.umbel_worker = self.start("umbel", "mixed,to_umbel,topic_to_umbel,direct_to_umbel,fan_to_umbel")

    def environment(self, side: str, **more: str) -> dict[str, str]:
        """Variables for the processes of one side."""
        ours = {
            "INTEROP_BROKER": self.broker,
            "INTEROP_RESULTS": self.results,
            "INTEROP_JOURNAL": str(self.journal),
            "INTEROP_SIDE": side,
            "C_FORCE_ROOT": "true",
            **self.more,
            **more,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INTEROP_")}
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**kept, **ours, "PYTHONPATH": os.pathsep.join(paths)}

    def start(self, side: str, queues: str, *, name: str = "", concurrency: int = 2, **more: str) -> Process:
        """Start a worker of one side; `more` are further variables of its environment."""
        name = name or f"{side}-main"
        arguments = ["worker", "-Q", queues, "-n", f"{name}@test", "-c", str(concurrency), "-l", "INFO"]
        programs = {
            "celery": [str(PYTHON), "-m", "celery", "-A", "celery_side"],
            "umbel": [sys.executable, "-m", "umbel", "-A", "umbel_side"],
        }
        environment = self.environment(side, **more)
        log = self.folder / f"{name}.log"
        process = Process(name, [*programs[side], *arguments], environment, log)
        self.processes.append(process)
        return process

    def runs(self, word: str = "", task_id: str = "") -> list[Run]:
        """What has been run so far."""
        lines = [line.split() for line in self.journal.read_text().splitlines() if line.startswith(word)]
        found = [Run(line[0], line[1], line[2], float(line[3]), int(line[4])) for line in lines if len(line) == 5]
        return [run for run in found if not task_id or run.id == task_id]

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task from umbel; gives its result."""
        return self.umbel.tasks[f"fleet.{name}"].apply_async(args, **options)

    def lease(self, queue: str, count: int, wait: float = 5.0) -> list[Delivery]:
        """Take messages as an umbel worker does, and finish them; gives them in order."""
        broker, taken = self.umbel.broker, list[Delivery]()
        deadline = time.monotonic() + wait
        while len(taken) < count and time.monotonic() < deadline:
            got = broker.lease(Lease((queue,), "test", count - len(taken), 30.0), time.time(), 0.2)
            broker.settle("test", [Settlement(one.tag, one.token) for one in got], time.time())
            taken += got
        return taken

    def outcome(self, task_id: str) -> dict[str, Any]:
        """How a task ended, as Celery sees it."""
        answer: dict[str, Any] = self.celery.ask(f"outcome({task_id!r})")
        return answer

    def explain(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {each.name}\n{each.text()[-1500:]}" for each in self.processes)

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        self.celery.close()
        self.umbel.close()
