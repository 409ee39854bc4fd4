"""The tasks of the process tests. Each run says in the journal that it starts and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.process import flow_jobs, journal
from umbel import Umbel
from umbel.core.errors import SoftTimeLimitExceeded


def say(what: str, id: str = "", **more: Any) -> None:
    """Write into the journal that the environment names."""
    journal.write(os.environ["LAB_JOURNAL"], what, id, **more)


@contextmanager
def told(task: Any) -> Iterator[str]:
    """Journal a run; gives the value that the task has to return."""
    request = task.request
    value = f"{os.getpid()}-{time.monotonic_ns()}"
    say("start", request.id, redelivered=request.delivery_info["redelivered"], task=task.name)
    yield value
    say("end", request.id, value=value)


def make_app(url: str, settings: dict[str, Any]) -> Umbel:
    """Return an app with all tasks of the lab."""
    app = Umbel("lab", broker=url, backend=url, set_as_current=False)
    app.conf.update(settings)
    _plain(app)
    _deadly(app)
    _limited(app)
    _odd(app)
    flow_jobs.define(app)
    return app


def _plain(app: Umbel) -> None:
    @app.task(bind=True, name="lab.work")
    def work(self: Any, seconds: float = 0.0) -> str:
        with told(self) as value:
            time.sleep(seconds)
        return value

    @app.task(bind=True, name="lab.work_late", acks_late=True)
    def work_late(self: Any, seconds: float = 0.0) -> str:
        with told(self) as value:
            time.sleep(seconds)
        return value

    @app.task(bind=True, name="lab.collect", acks_late=True)
    def collect(self: Any, values: list[str]) -> list[str]:
        """Return what the header of a chord gave."""
        with told(self):
            return values

    @app.task(bind=True, name="lab.held", acks_late=True)
    def held(self: Any, gate: str) -> str:
        """Run until the file `gate` exists."""
        with told(self) as value:
            while not os.path.exists(gate):
                time.sleep(0.01)
        return value

    @app.task(bind=True, name="lab.held_early")
    def held_early(self: Any, gate: str) -> str:
        """Run until the file `gate` exists, acknowledged early."""
        with told(self) as value:
            while not os.path.exists(gate):
                time.sleep(0.01)
        return value

    @app.task(bind=True, name="lab.awaited", acks_late=True)
    async def awaited(self: Any, seconds: float = 0.0) -> str:
        import asyncio

        with told(self) as value:
            await asyncio.sleep(seconds)
        return value

    @app.task(bind=True, name="lab.again", acks_late=True, max_retries=3)
    def again(self: Any) -> str:
        """Ask for one retry, then succeed."""
        with told(self) as value:
            pass
        if not self.request.retries:
            raise self.retry(countdown=0)
        return value


def _deadly(app: Umbel) -> None:
    def die(task: Any, signum: int, times: int) -> str:
        with told(task) as value:
            if times:
                marks = [e for e in journal.Journal(os.environ["LAB_JOURNAL"]).events() if e.what == "kill"]
                if sum(task.request.id == mark.more["by"] for mark in marks) >= times:
                    return value
            say("kill", pids=[os.getpid()], by=task.request.id)
            os.kill(os.getpid(), signum)
            threading.Event().wait()
        return value

    @app.task(bind=True, name="lab.die")
    def die_early(self: Any, signum: int = signal.SIGKILL, times: int = 0) -> str:
        return die(self, signum, times)

    @app.task(bind=True, name="lab.die_late", acks_late=True)
    def die_late(self: Any, signum: int = signal.SIGKILL, times: int = 0) -> str:
        return die(self, signum, times)

    @app.task(bind=True, name="lab.die_once_failed", acks_late=True, reject_on_worker_lost=False)
    def die_once_failed(self: Any, signum: int = signal.SIGKILL, times: int = 0) -> str:
        return die(self, signum, times)


def _limited(app: Umbel) -> None:
    @app.task(bind=True, name="lab.family")
    def family(self: Any) -> str:
        """Start a child and a grandchild that never end, and never end oneself."""
        with told(self) as value:
            child = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            say("family", self.request.id, pids=[os.getpid(), child.pid, int(child.stdout.readline())])
            threading.Event().wait()
        return value

    @app.task(bind=True, name="lab.soft")
    def soft(self: Any) -> str:
        # The limit may come as soon as the start is told, so that is inside too.
        try:
            with told(self):
                threading.Event().wait()
        except SoftTimeLimitExceeded:
            say("soft", self.request.id)
        value = "stopped in time"
        say("end", self.request.id, value=value)
        return value

    @app.task(bind=True, name="lab.eat", acks_late=True)
    def eat(self: Any, mebibytes: int) -> str:
        with told(self) as value:
            os.environ.setdefault("LAB_EATEN", "")
            _eaten.append(b"x" * (mebibytes << 20))
        return value


_eaten: list[bytes] = []
#: Held nearly always by a thread of the supervisor when LAB_LOCK says so; every import of logging does the like.
lock = threading.Lock()


def hog() -> None:
    """Hold the lock nearly all the time, in a thread, as a careless library might."""

    def run() -> None:
        while True:
            with lock:
                time.sleep(0.02)
            time.sleep(0.0004)

    threading.Thread(target=run, daemon=True).start()


def _odd(app: Umbel) -> None:
    @app.task(bind=True, name="lab.unwritable")
    def unwritable(self: Any) -> Any:
        with told(self):
            pass
        return object()

    @app.task(bind=True, name="lab.big")
    def big(self: Any, mebibytes: int) -> str:
        with told(self):
            pass
        return "x" * (mebibytes << 20)

    @app.task(bind=True, name="lab.locked", acks_late=True)
    def locked(self: Any) -> str:
        with told(self) as value, lock:
            pass
        return value
