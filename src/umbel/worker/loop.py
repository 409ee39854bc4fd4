"""An event loop in a thread of its own, on which the `async def` tasks of one process run together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec

from umbel.app.execution import Job, Report, Runner
from umbel.core.errors import SoftTimeLimitExceeded


class TaskLoop:
    """Runs jobs of asynchronous tasks and hands each with its report to `deliver`, called on the loop's thread."""

    def __init__(self, runner: Runner, deliver: Callable[[Job, Report], None]) -> None:
        self._runner = runner
        self._deliver = deliver
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[int, asyncio.Task[Report]] = {}
        #: Job number → (verdict, text) of jobs that were cancelled on purpose.
        self._verdicts: dict[int, tuple[str, str]] = {}
        self._idle = threading.Condition()
        self._busy = 0
        self._thread = threading.Thread(target=self._run, name="umbel-async-tasks", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, soft: float | None = None, hard: float | None = None) -> None:
        """Start a job; any number run at once. Limits are seconds from its start."""
        with self._idle:
            self._busy += 1
        self._loop.call_soon_threadsafe(self._begin, job, soft, hard)

    def end(self, number: int, verdict: str, text: str) -> None:
        """Cancel the task of a job; it reports with this verdict (terminated, lost)."""
        self._loop.call_soon_threadsafe(self._cancel, number, verdict, text)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; False when `timeout` seconds pass first."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, timeout)

    def stop(self) -> None:
        """End the thread; what still runs gives no report."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self, job: Job, soft: float | None, hard: float | None) -> None:
        self._loop.create_task(self._watch(job, soft, hard))

    async def _watch(self, job: Job, soft: float | None, hard: float | None) -> None:
        task = self._tasks[job.number] = self._loop.create_task(self._runner.arun(job))
        timers = []
        if soft:
            timers.append(self._loop.call_later(soft, task.cancel, SoftTimeLimitExceeded(soft)))
        if hard:
            timers.append(self._loop.call_later(hard, self._cancel, job.number, "timeout", str(hard)))
        try:
            report = await task
        except asyncio.CancelledError:
            verdict, text = self._verdicts.pop(job.number, ("lost", "the task was cancelled"))
            report = self._runner.conclude(msgspec.structs.replace(job, verdict=verdict, verdict_text=text))
        finally:
            for timer in timers:
                timer.cancel()
            del self._tasks[job.number]
        self._deliver(job, report)
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    def _cancel(self, number: int, verdict: str, text: str) -> None:
        task = self._tasks.get(number)
        if task is not None:
            self._verdicts[number] = (verdict, text)
            task.cancel()
