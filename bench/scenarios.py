"""The measurements. Each takes a bench and a size and gives named numbers.

enqueue: one process calls `delay()` in a loop. drain: queued no-ops, 2 executors, the rate from the moment 5 % were
executed to the last. results: the same with results stored, until a sample of 300 that includes the last was read.
latency: one call at a time on an idle worker. bulk: publishing many in one call. footprint: start of the worker to
its first task, memory, idle processor time. delayed: the worker's memory with a million delayed tasks waiting.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from footprint import memory, processor_seconds
from systems import APPS, System

HERE = Path(__file__).resolve().parent
Numbers = dict[str, float]
IDLE_SECONDS = 5.0


@dataclass
class Bench:
    """A system, its interpreter, where its messages are and its fresh folder."""

    system: System
    python: str
    url: str
    folder: Path
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
    def environment(self) -> dict[str, str]:
        """What the system's processes find in their environment."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "PYTHONPATH": str(APPS),
            "BENCH_URL": self.url,
            "BENCH_MARKER": str(self.marker),
            "BENCH_RESULTS": "1" if self.results else "0",
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


def enqueue(bench: Bench, size: int) -> Numbers:
    """Tasks a second that one process can enqueue with `delay()`."""
    return {"enqueue_per_s": number(bench.ask("enqueue", size)["rate"])}


def drain(bench: Bench, size: int) -> Numbers:
    """Tasks a second that a worker takes out of a full queue."""
    bench.ask("enqueue", size)
    first = max(size // 20, 1)
    with bench.worker():
        began = bench.wait_done(first)
        already = bench.done
        ended = bench.wait_done(size)
    return {"drain_per_s": (size - already) / (ended - began)}


def drain_results(bench: Bench, size: int) -> Numbers:
    """The same with results, stored and read."""
    bench.results = True
    client = bench.producer("results", size)
    assert client.stdout is not None
    if client.stdout.readline() != "ready\n":
        raise SystemExit(f"{bench.system.name}: the client did not get ready\n{bench.log('client.log')}")
    with bench.worker():
        began = bench.wait_done(max(size // 20, 1))
        already = bench.done
        read_at = number(answer(bench, client, "go\n")["read_at"])
        ended = bench.wait_done(size)
    return {"results_per_s": (size - already) / (max(read_at, ended) - began)}


def latency(bench: Bench, size: int) -> Numbers:
    """Milliseconds from submitting to the result at the caller, one at a time."""
    bench.results = True
    with bench.worker():
        times = bench.ask("latency", max(size // 50, 100))["times"]
    assert isinstance(times, list)
    cuts = statistics.quantiles([float(item) for item in times], n=100)
    return {"latency_p50_ms": cuts[49], "latency_p99_ms": cuts[98]}


def footprint(bench: Bench, size: int) -> Numbers:
    """Seconds from the worker's command to its first task; megabytes after some work; idle processor share."""
    bench.ask("enqueue", 1)
    began = time.time()
    with bench.worker() as process:
        first = bench.wait_done(1) - began
        bench.ask("enqueue", min(size, 1000))
        bench.wait_done(min(size, 1000) + 1)
        time.sleep(1.0)
        used = processor_seconds(process)
        time.sleep(IDLE_SECONDS)
        idle = (processor_seconds(process) - used) / IDLE_SECONDS * 100
        pss = memory(process)
    return {"first_task_s": first, "memory_mb": pss, "idle_cpu_percent": idle}


def number(value: object) -> float:
    """A number out of a client's answer."""
    assert isinstance(value, int | float)
    return float(value)


SCENARIOS: dict[str, Callable[[Bench, int], Numbers]] = {
    "enqueue": enqueue,
    "drain": drain,
    "results": drain_results,
    "latency": latency,
    "footprint": footprint,
}
