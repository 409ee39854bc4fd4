"""The command as its users run it: a project in a folder of its own, commands and workers as processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = """
import os, time
from umbel.app.app import Umbel
from umbel.app.log import get_task_logger

app = Umbel("proj", broker="sqlite:///{folder}/queue.db")
log = get_task_logger(__name__)

@app.task
def add(x, y):
    return x + y

@app.task
def speak(text):
    log.warning("spoken: %s", text)
    print("printed", text)
    return text

@app.task
def fail(secret):
    raise ValueError("this went wrong")
"""


@dataclass
class Project:
    """A folder with `proj.py`, whose app has a SQLite queue in it."""

    folder: Path
    wait_until: Callable[..., None]

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def command(self, *args: str, app: str = "proj") -> list[str]:
        return [sys.executable, "-m", "umbel", *(["-A", app] if app else []), *args]

    def run(
        self, *args: str, app: str = "proj", input: str | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*args, app=app),
            cwd=self.folder,
            env=os.environ | env,
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @contextlib.contextmanager
    def worker(
        self, *args: str, wait: bool = True, before: tuple[str, ...] = (), **env: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker with one executor; its output goes to `worker.log`."""
        command = self.command(*before, "worker", "-c", "1", "-l", "info", *args)
        with (self.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            if wait:
                self.wait_until(
                    lambda: "ready." in self.log() or process.poll() is not None, what="the worker to be ready"
                )
                assert process.poll() is None, self.log()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str = "worker.log") -> str:
        return (self.folder / name).read_text()
