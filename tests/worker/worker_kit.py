"""Workers as processes: a module with an app in a folder of its own, and `umbel worker` on it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.servers.process import Keeper
from umbel.app.app import Umbel

HEAD = """
import asyncio, json, os, threading, time
from umbel.app import signals
from umbel.app.app import Umbel
from umbel.core.errors import SoftTimeLimitExceeded

FOLDER = {folder!r}
app = Umbel("crewed", broker="sqlite:///" + FOLDER + "/data/queue.db")
app.conf.worker_lease, app.conf.worker_heartbeat = 6.0, 1.0


def note(what, **more):
    line = json.dumps(dict(what=what, pid=os.getpid(), parent=os.getppid(), **more)) + "\\n"
    fd = os.open(FOLDER + "/notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.002)


@app.task
def pid():
    return os.getpid()


@app.task
def work(seconds, name=""):
    note("begin", name=name)
    spin(seconds)
    note("end", name=name)
    return name


@app.task
async def awork(seconds):
    await asyncio.sleep(seconds)
    return "awaited"


@app.task
def careful():
    try:
        spin(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
"""


class Crewed:
    """The folder, the app of the tests' own process, and the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        self.write("")
        self.app = Umbel("crewed", set_as_current=False, broker=f"sqlite:///{folder}/data/queue.db")
        self.workers: list[Running] = []

    def write(self, more: str) -> None:
        """Write the module, with more at its end."""
        (self.folder / "crewed.py").write_text(HEAD.replace("{folder!r}", repr(str(self.folder))) + more)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task of the module."""
        return self.app.send_task(f"crewed.{name}", args, **options)

    def worker(self, *arguments: str, name: str = "one", ready: bool = True, **environment: str) -> Running:
        """Start a worker, by default wait until it is ready."""
        worker = Running(self, name, arguments, environment)
        self.workers.append(worker)
        if ready:
            wait(lambda: "ready." in worker.log() or worker.process.poll() is not None, 20, f"{name} to be ready")
            assert worker.process.poll() is None, worker.log()
        return worker

    def notes(self, what: str) -> list[dict[str, Any]]:
        """Return what handlers and tasks have noted under this name."""
        try:
            lines = (self.folder / "notes").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [note for note in map(json.loads, lines) if note["what"] == what]

    def close(self) -> None:
        """End everything; say what the workers said."""
        for worker in self.workers:
            worker.end()
            print(f"--- {worker.name} ---\n{worker.log()[-5000:]}")
        self.app.close()


class Running:
    """One worker process."""

    def __init__(self, crewed: Crewed, name: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.name = name
        self._log = crewed.folder / f"{name}.log"
        command = [sys.executable, "-m", "umbel", "-A", "crewed", "worker", "-n", name, "-l", "info", *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=crewed.folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        Keeper.tell(f"pid {self.process.pid}")

    def log(self) -> str:
        """Return the log so far."""
        return self._log.read_text(errors="replace")

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill what is left."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


def wait(condition: Any, seconds: float = 15.0, what: str = "the condition") -> None:
    """Return as soon as the condition holds; fail at the deadline, saying what never came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)


def most_common(values: list[Any]) -> int:
    """Return how often the most frequent value comes."""
    return Counter(values).most_common(1)[0][1]
