"""The process that runs tasks: it reads batches of jobs from its socket and sends batches of reports back.

One task at a time in the main thread; `async def` tasks run together on an event loop in a second thread. The
consumer may ask (SIGURG, which every other program ignores) for what has not started yet, so that a long task
holds nothing back; the answer comes from the signal's handler, between two bytecodes of the running task.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from umbel.app.execution import Job, Report, Runner
from umbel.core.errors import OperationalError, SoftTimeLimitExceeded
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.failpoints import failpoint
from umbel.engine.seam import Engine, Store
from umbel.worker.frames import FrameReader, pack
from umbel.worker.limits import hard_limit_of, soft_limit_of, unlimited
from umbel.worker.loop import TaskLoop
from umbel.worker.next_step import Next, NextSteps
from umbel.worker.options import WorkerOptions
from umbel.worker.outcome_log import log_report
from umbel.worker.progress import Slot
from umbel.worker.ring import RingWriter

#: How often an executor looks whether a lapsed lease stands again (seconds).
_LEASE_PAUSE = 0.02


class Down(msgspec.Struct, array_like=True, gc=False):
    """What a consumer tells an executor: jobs to run, or (no jobs) `recall`/`retire`."""

    jobs: list[Job] = []
    #: Give back what has not started.
    recall: bool = False
    #: Finish what is here, then exit.
    retire: bool = False


class Up(msgspec.Struct, array_like=True, gc=False):
    """What an executor tells its consumer."""

    reports: list[Report] = []
    #: Numbers of jobs that were given back unstarted.
    recalled: list[int] = []
    #: Set once, when the executor is ready for work; its process id.
    ready: int = 0
    #: Numbers of follow-ups that were to be gone on with, and have gone into their queues.
    queued: list[int] = []
    #: The same of those of which is not known whether they are held.
    unsure: list[int] = []
    #: Why the executor will exit after this frame ("" = it goes on): it has reached one of its limits.
    leaving: str = ""


#: An empty frame: it wakes the consumer, which then looks at the rings.
_BELL = pack(Up())


@dataclass
class ExecutorLimits:
    """When an executor has served its time (None: never)."""

    max_tasks: int | None = None
    #: Resident memory in KiB, looked at after each task (Celery: worker_max_memory_per_child).
    max_memory: int | None = None


_NO_LIMITS = ExecutorLimits()


@dataclass
class Executor:
    """One executor process' loop over its socket."""

    app: Any
    runner: Runner
    sock: socket.socket
    slot: Slot
    limits: ExecutorLimits
    options: WorkerOptions
    #: Where reports go; None: all through the socket.
    ring: RingWriter | None = None
    #: Lets it go on by itself with what follows from a task.
    steps: NextSteps | None = None
    #: Where large bodies lie.
    bodies: memoryview | None = None
    #: Where it stores results by itself while nothing else waits here (see `results_apart`).
    store: Store | None = None

    def __post_init__(self) -> None:
        self._reader: FrameReader[Down] = FrameReader(Down)
        self._queue: deque[Job] = deque()
        self._sending = threading.Lock()
        self._in_task = False
        self._recall_wanted = False
        self._retiring = False
        self._done = 0
        #: What it goes on with by itself, read already.
        self._next: Next | None = None
        self._soft: float | None = None
        self._loop: TaskLoop | None = None

    def run(self) -> None:
        """Serve until the socket closes, `retire` comes, or a limit is reached."""
        signal.signal(signal.SIGURG, self._on_recall)
        signal.signal(signal.SIGALRM, self._on_soft_limit)
        # Celery's soft limit signal: revoke(terminate=True, signal="SIGUSR1") raises SoftTimeLimitExceeded.
        signal.signal(signal.SIGUSR1, self._on_soft_limit)
        self.send_ready()
        self.serve()

    def send_ready(self) -> None:
        """Say that this executor can be given jobs."""
        self._send(Up(ready=os.getpid()))

    def serve(self) -> None:
        """Run jobs until the socket closes or this executor has served its time."""
        try:
            while self._receive(block=True):
                self._work()
                if self._leaving():
                    break
        finally:
            if self._loop is not None:
                self._loop.stop()

    # --- jobs in -------------------------------------------------------------------------------------------

    def _receive(self, *, block: bool) -> bool:
        """Take in frames; False when the consumer is gone or all is done."""
        if self._retiring and not self._queue:
            self._wait_for_async()
            return False
        frames = self._reader.read(self.sock, 0 if block else socket.MSG_DONTWAIT)
        if frames is None:
            return False
        for frame in frames:
            self._queue.extend(frame.jobs)
            self._retiring = self._retiring or frame.retire
            if frame.recall:
                self._give_back()
        return True

    def _work(self) -> None:
        queue = self._queue
        limited = self.limits != _NO_LIMITS
        #: Task name → whether it is asynchronous, and its soft limit where the message sets none.
        facts: dict[str, tuple[bool, float | None]] = {}
        while queue:
            job = queue.popleft()
            if not self._begin(job):
                self._wait_for_lease()
                continue
            if job.size and self.bodies is not None:
                job.body = bytes(self.bodies[job.place : job.place + job.size])
            known = facts.get(job.task)
            if known is None:
                known = facts[job.task] = (
                    self.runner.is_async(job.task),
                    soft_limit_of(self.app, job.task, b"", self.options),
                )
            is_async, soft = known
            if is_async and not job.verdict:
                self._start_async(job)
            else:
                self._run_one(job, soft)
            if self._recall_wanted:
                self._give_back()
            if limited and self._limit_reached():
                break

    def _begin(self, job: Job) -> bool:
        """Say that a job begins; False, and it waits on, where the lease has lapsed.

        A worker that was frozen, or could not reach its broker, for as long as a lease lasts: others were told that
        this job only waited, and may run it. Asked in this order, who takes it over reads that it has begun, or it
        is not begun.
        """
        self.slot.start(job.number)
        if self.slot.is_leased():
            return True
        self.slot.take_back()
        self._queue.appendleft(job)
        return False

    def _wait_for_lease(self) -> None:
        """Wait until the consumer has extended the lease, or wants the jobs back; or ends, and this process with it."""
        while not self.slot.is_leased():
            if self._recall_wanted:
                self._give_back()
                return
            time.sleep(_LEASE_PAUSE)

    def _run_one(self, job: Job, soft: float | None) -> None:
        failpoint("run.before")
        if job.verdict:
            soft = None
        elif not unlimited(job.head):
            soft = soft_limit_of(self.app, job.task, job.head, self.options)
        self._in_task = True
        try:
            report = self._limited(job, soft) if soft else self._plain(job)
        finally:
            self._in_task = False
        failpoint("run.after")
        self.slot.finish(job.number)
        self._done += 1
        if report.log:
            log_report(job, report)
        if not self._go_on(job, report):
            if self.steps is not None:
                self.steps.let_go()
            self._store(report)
            # At once, never with the next one: what a kill takes away is the running task and nothing before it.
            self._tell(report)

    def _store(self, report: Report) -> None:
        """Store the result where nothing else is to be done: who waits for it hears of it before the consumer does."""
        if self.store is None or report.record is None or self._queue:
            return
        with suppress(OperationalError):
            self.store.put([report.record], SYSTEM_CLOCK.now())
            report.record = None

    def _go_on(self, job: Job, report: Report) -> bool:
        """Store what the job has come to and go on with what follows; False where that is the consumer's work."""
        if self.steps is None or self.ring is None or not report.publish:
            return False
        if self._queue or self._retiring or self._recall_wanted or self._limit_reached():
            return False
        step = self.steps.after(job, report)
        if step is None:
            return False
        report.next = step.job.number
        if not self._append(report, self.ring):
            report.next = 0
            return False
        try:
            self._next = self.steps.go_on(step)
        except OperationalError:
            self._write(pack(Up(unsure=[step.job.number])))
            return True
        if self._next is None:
            self._write(pack(Up(queued=[step.job.number])))
        else:
            self._queue.append(step.job)
        return True

    def _plain(self, job: Job) -> Report:
        if job.verdict:
            return self.runner.conclude(job)
        following, self._next = self._next, None
        return self.runner.run(job, following.call if following is not None and following.job is job else None)

    def _limited(self, job: Job, soft: float) -> Report:
        """Run with a timer that raises SoftTimeLimitExceeded in the task."""
        self._soft = soft
        signal.setitimer(signal.ITIMER_REAL, soft)
        try:
            return self._plain(job)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_soft_limit(self, _signum: int, _frame: FrameType | None) -> None:
        """Raise in the task's own code only: bookkeeping before and after it is not to be torn."""
        if self.runner.in_task:
            raise SoftTimeLimitExceeded(self._soft)

    # --- asynchronous tasks --------------------------------------------------------------------------------

    def _start_async(self, job: Job) -> None:
        if self._loop is None:
            self._loop = TaskLoop(self.runner, self._deliver)
        self.slot.finish(job.number)
        failpoint("run.before")
        self._loop.submit(
            job,
            soft=soft_limit_of(self.app, job.task, job.head, self.options),
            hard=hard_limit_of(self.app, job.task, job.head, self.options),
        )

    def _deliver(self, job: Job, report: Report) -> None:
        """Send the report of an asynchronous task (called on the loop's thread)."""
        failpoint("run.after")
        self._done += 1
        log_report(job, report)
        self._tell(report)

    def _wait_for_async(self) -> None:
        if self._loop is not None:
            self._loop.wait_idle()

    # --- reports out ---------------------------------------------------------------------------------------

    def _tell(self, report: Report) -> None:
        """Hand a report over: when this returns, the end of this process cannot take it back."""
        ring = self.ring
        if ring is None:
            self._send(Up(reports=[report]))
            return
        if not self._append(report, ring):
            self._send(Up(reports=[report]))
        elif ring.must_ring():
            self._write(_BELL)

    def _append(self, report: Report, ring: RingWriter) -> bool:
        """Put a report into the ring; False where that has no room. Its reader is woken before it is full."""
        failpoint("report.before")
        with self._sending:
            appended = ring.append(report)
        if not appended:
            return False
        failpoint("report.after")
        if ring.is_filling and ring.must_ring():
            self._write(_BELL)
        return True

    def _send(self, frame: Up) -> None:
        failpoint("report.before")
        self._write(pack(frame))
        failpoint("report.after")

    def _write(self, data: bytes) -> None:
        # A consumer that is gone needs nothing; this process ends as soon as it reads.
        with self._sending, suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def _on_recall(self, _signum: int, _frame: FrameType | None) -> None:
        """Give back waiting jobs: at once from inside a task, else when the loop gets there."""
        if not self._in_task:
            self._recall_wanted = True
            return
        self._in_task = False
        try:
            self._receive(block=False)
            self._give_back()
        finally:
            self._in_task = True

    def _give_back(self) -> None:
        self._recall_wanted = False
        recalled = [job.number for job in self._queue]
        self._queue.clear()
        self._send(Up(recalled=recalled))

    # --- limits --------------------------------------------------------------------------------------------

    def _limit_reached(self) -> bool:
        limits = self.limits
        if limits.max_tasks is not None and self._done >= limits.max_tasks:
            return True
        return limits.max_memory is not None and resident_kib() > limits.max_memory

    def _leaving(self) -> bool:
        if not self._limit_reached():
            return False
        self._wait_for_async()
        why = f"{self._done} tasks" if self.limits.max_memory is None else f"{resident_kib()} KiB resident"
        self._receive(block=False)
        recalled = [job.number for job in self._queue]
        self._queue.clear()
        self._send(Up(recalled=recalled, leaving=why))
        return True


def results_apart(engine: Engine) -> Store | None:
    """Return the store where it is no part of the broker and not reached through it; None elsewhere."""
    return engine.store if engine.atomic is None and engine.replies is None else None


def resident_kib() -> int:
    """Return this process' resident memory in KiB."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak


def no_operation(*_args: Any) -> None:
    """Signal handler that does nothing; unlike SIG_IGN it is not handed down to programs that a task starts."""
