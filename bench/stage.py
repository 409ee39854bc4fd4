"""One system set up for a measurement: its client and worker as processes, and the marker that its tasks write."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from systems import APPS, System

HERE = Path(__file__).resolve().parent


@dataclass
class Bench:
    """A system, its interpreter, where its messages are and its fresh folder."""

    system: System
    python: str
    url: str
    folder: Path
    #: Where results are, if not beside the messages.
    result_url: str = ""
    results: bool = False

    @property
    def marker(self) -> Path:
        """The file that grows by a byte with each task."""
        return self.folder / "marker"

    @property
    def done(self) -> int:
        """How many tasks were executed."""
        return self.marker.stat().st_size if self.marker.exists() else 0

    @property
    def lateness(self) -> list[float]:
        """How many seconds after its time each delayed task was executed."""
        path = self.folder / "marker.late"
        return [late for (late,) in struct.iter_unpack("<d", path.read_bytes())] if path.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """What the system's processes find in their environment."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            # The umbel of this checkout, whichever one the interpreter has installed.
            "PYTHONPATH": f"{APPS}:{HERE.parent / 'src'}",
            "BENCH_URL": self.url,
            "BENCH_RESULT_URL": self.result_url or self.url,
            "BENCH_MARKER": str(self.marker),
            "BENCH_RESULTS": "1" if self.results else "0",
            **self.system.variables,
        }

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a process of the system with pipes to talk to it; its errors go to a log."""
        with (self.folder / "client.log").open("a") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def producer(self, action: str, count: int) -> subprocess.Popen[str]:
        """Start the client side."""
        script = str(HERE / "producer.py")
        return self.start([self.python, script, self.system.app, action, str(count)])

    def ask(self, action: str, count: int) -> dict[str, object]:
        """Run the client side to its end; gives what it printed."""
        return answer(self, self.producer(action, count))

    @contextmanager
    def worker(self) -> Iterator[int]:
        """Run a worker; gives its process id."""
        command = [part.replace("{python}", self.python) for part in self.system.worker]
        with (self.folder / "worker.log").open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        """The end of a log."""
        path = self.folder / name
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def wait_done(self, count: int, seconds: float = 300.0) -> float:
        """Return the time at which so many tasks had been executed."""
        deadline = time.monotonic() + seconds
        while self.done < count:
            if time.monotonic() > deadline:
                said = self.log("worker.log")
                raise SystemExit(f"{self.system.name}: {self.done} of {count} tasks after {seconds:g} s\n{said}")
            time.sleep(0.001)
        return time.time()


def answer(bench: Bench, process: subprocess.Popen[str], say: str | None = None) -> dict[str, object]:
    """Wait for a client's last line of output."""
    output, _ = process.communicate(say, timeout=600)
    if process.returncode:
        raise SystemExit(f"{bench.system.name}: the client failed\n{bench.log('client.log')}")
    line: dict[str, object] = json.loads(output.splitlines()[-1])
    return line


def number(value: object) -> float:
    """A number out of a client's answer."""
    assert isinstance(value, int | float)
    return float(value)
