"""The pools that run tasks inside the consumer's own process: threads, asyncio and solo.

Each of their executors is a thread that speaks over a socket pair exactly as an executor process does, so that
leasing, dispatching and settling are the same for every pool. A thread cannot be killed: a task that passes its
hard limit gets TimeLimitExceeded raised in it, and is counted as timed out; where it goes on all the same (it sits
in C code), its thread is abandoned and another takes its place.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Any

from umbel.app.execution import Job, Report, Runner
from umbel.core.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.worker.executor import Executor, ExecutorLimits
from umbel.worker.limits import hard_limit_of
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Progress

logger = logging.getLogger("umbel.worker")

#: Pool → how many threads it has for a concurrency, and how many `async def` tasks each runs at once.
SHAPES: dict[str, Callable[[int], tuple[int, int]]] = {
    "threads": lambda concurrency: (concurrency, 1),
    "asyncio": lambda concurrency: (1, concurrency),
    "solo": lambda _concurrency: (1, 1),
}


class LocalExecutor(Executor):
    """An executor that is a thread of the consumer."""

    def run(self) -> None:
        """Serve until the socket closes; signals belong to the process, so limits are raised by timers."""
        self.send_ready()
        self.serve()

    def _limited(self, job: Job, soft: float) -> Report:
        return self._timed(job, soft)

    def _plain(self, job: Job) -> Report:
        hard = None if job.verdict else hard_limit_of(self.app, job.task, job.head, self.options)
        return super()._plain(job) if hard is None else self._timed(job, None)

    def _timed(self, job: Job, soft: float | None) -> Report:
        """Run with timers that raise in this thread; what comes too late is not raised at all."""
        hard = hard_limit_of(self.app, job.task, job.head, self.options)
        thread = threading.get_ident()
        guard = threading.Lock()
        timers = [
            threading.Timer(limit, _raise_in, (thread, _with_limit(error, limit), self.runner, guard))
            for limit, error in ((soft, SoftTimeLimitExceeded), (hard, TimeLimitExceeded))
            if limit
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            return super()._plain(job)
        finally:
            with guard:
                for timer in timers:
                    timer.cancel()


def _with_limit(error: type[Exception], limit: float) -> type[Exception]:
    """Return `error` as a class that says the limit by itself: a thread can be sent a class only, no instance."""

    class Limited(error):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__(limit)

    Limited.__name__, Limited.__qualname__, Limited.__module__ = error.__name__, error.__qualname__, error.__module__
    return Limited


def _raise_in(thread: int, error: type[Exception], runner: Runner, guard: Any) -> None:
    """Raise an exception class in another thread, if that runs a task's own code just now."""
    with guard:
        if runner.in_task:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class LocalCrew:
    """Starts the executor threads of a pool."""

    def __init__(self, app: Any, options: WorkerOptions, progress: Progress) -> None:
        self._app = app
        self._options = options
        self._progress = progress
        self._next_slot = 0

    def start(self) -> list[tuple[int, int, socket.socket]]:
        """Start every thread; return (slot, process id, the consumer's socket) of each."""
        threads, _async_limit = SHAPES[self._options.pool](self._options.concurrency)
        return [self._start() for _ in range(threads)]

    def replace(self) -> tuple[int, int, socket.socket] | None:
        """Start a thread in the place of one that was given up; None when that happened too often."""
        return self._start() if self._next_slot < self._progress.slots else None

    def _start(self) -> tuple[int, int, socket.socket]:
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(slot, theirs), name=f"executor-{slot}", daemon=True).start()
        return slot, os.getpid(), ours

    def _serve(self, slot: int, sock: socket.socket) -> None:
        runner = Runner(self._app, self._options.hostname, clock=SYSTEM_CLOCK, rng=random.Random())
        executor = LocalExecutor(self._app, runner, sock, self._progress.slot(slot), ExecutorLimits(), self._options)
        try:
            executor.run()
        except Exception:
            logger.exception("Executor thread %d ended with an error", slot)
        finally:
            sock.close()
