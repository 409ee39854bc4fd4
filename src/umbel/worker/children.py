"""Forking: what a consumer and an executor process do from their first instruction to their last."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from umbel.app import signals
from umbel.app.execution import Runner
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.failpoints import enter_process
from umbel.worker.bodies import keep_memory
from umbel.worker.executor import Executor, ExecutorLimits, no_operation, results_apart
from umbel.worker.link import Link
from umbel.worker.next_step import NextSteps, goes_on
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Progress
from umbel.worker.session import build_consumer

logger = logging.getLogger("umbel.worker")

_PR_SET_PDEATHSIG = 1
#: Signals that stop a worker reach its whole process group; only the supervisor may act on them.
_SUPERVISORS_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def describe_exit(status: int) -> str:
    """Return how a process ended, from its wait status, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.Signals(number).name})"
    return f"exit status {os.WEXITSTATUS(status)}"


#: In a process that was started afresh to be a consumer or an executor: which one, as JSON.
_ROLE = "UMBEL_WORKER_ROLE"


def spawned_role() -> dict[str, Any] | None:
    """Return what this process was started to be; None for a worker that somebody started."""
    text = os.environ.get(_ROLE)
    return None if text is None else json.loads(text)


def thread_count() -> int:
    """Return how many threads this process has, those of C libraries included where the system tells."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


class Launcher:
    """Starts the processes of one worker: forks, or fresh interpreters where the app has started threads.

    A fork beside a thread may inherit a lock that nobody will ever release. A fresh process runs the same command
    line again and then takes its role instead of supervising.
    """

    def __init__(
        self,
        app: Any,
        options: WorkerOptions,
        set_title: Callable[[str], None] = lambda _title: None,
        *,
        spawns: bool = False,
    ) -> None:
        self.app = app
        self.options = options
        self._set_title = set_title
        self._spawns = spawns
        #: Other pools run tasks inside the consumer.
        self.forks_executors = options.pool == "prefork"
        #: Celery: the environment variable REMAP_SIGTERM=SIGQUIT makes TERM a cold shutdown.
        self.remaps_sigterm = os.environ.get("REMAP_SIGTERM") == "SIGQUIT"

    def fork_consumer(
        self,
        owner: str,
        progress: Progress,
        ours: socket.socket,
        theirs: socket.socket,
        dead: tuple[str, ...] = (),
    ) -> int:
        """Fork the consumer; return its process id. Raises OSError when no process can be made.

        `dead` are sessions that are known to have ended.
        """
        gc.freeze()
        if self._spawns:
            return _spawn({"kind": "consumer", "session": owner, "dead": dead}, theirs)
        pid = os.fork()
        if not pid:
            _in_child("consumer", [ours])
            self._set_title("consumer")
            _leave(lambda: build_consumer(self.app, self.options, owner, progress, Link(theirs), dead).run())
        return pid

    def fork_executor(
        self, slot: int, progress: Progress, ours: socket.socket, theirs: socket.socket, link: socket.socket
    ) -> int:
        """Fork executor number `slot`; return its process id. Raises OSError when no process can be made."""
        signals.worker_before_create_process.send(sender=self)
        if self._spawns:
            return _spawn({"kind": "executor", "session": progress.session, "slot": slot}, theirs)
        gc.freeze()
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            _in_child("executor", [ours, link])
            self._set_title(f"executor {slot}")
            _leave(lambda: self._serve(slot, progress, theirs))
        with suppress(OSError):
            os.setpgid(pid, pid)
        return pid

    def take_role(self, role: dict[str, Any]) -> NoReturn:
        """Be what this process was spawned for; does not return."""
        del os.environ[_ROLE]
        sock = socket.socket(fileno=role["fd"])
        session = role["session"]
        _in_child(role["kind"], [])
        progress = Progress.attach(session)
        if role["kind"] == "consumer":
            self._set_title("consumer")
            dead = tuple(role["dead"])
            _leave(lambda: build_consumer(self.app, self.options, session, progress, Link(sock), dead).run())
        self._set_title(f"executor {role['slot']}")
        _leave(lambda: self._serve(role["slot"], progress, sock))

    def _serve(self, slot: int, progress: Progress, sock: socket.socket) -> int:
        options = self.options
        signals.worker_process_init.send(sender=options.hostname)
        keep_memory()
        runner = Runner(self.app, options.hostname, clock=SYSTEM_CLOCK, rng=random.Random())
        place = progress.slot(slot)
        executor = Executor(
            self.app,
            runner,
            sock,
            place,
            ExecutorLimits(options.max_tasks_per_child, options.max_memory_per_child),
            options,
            None if progress.rings is None else progress.rings.writer(slot),
            NextSteps(runner, options, progress.session, slot, place) if goes_on(self.app, options) else None,
            None if progress.bodies is None else progress.bodies.part(slot),
            store=None if progress.rings is None else results_apart(self.app.engine),
        )
        status = 0
        try:
            executor.run()
        finally:
            signals.worker_process_shutdown.send(sender=options.hostname, pid=os.getpid(), exitcode=status)
        return status

    def dump_stacks(self) -> None:
        """Write the stack of every thread of this process to stderr (SIGUSR1)."""
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)


def _spawn(role: dict[str, Any], sock: socket.socket) -> int:
    """Start a fresh interpreter with this process' command line and the socket for its role; return its id."""
    sock.set_inheritable(True)
    try:
        environment = {**os.environ, _ROLE: json.dumps({**role, "fd": sock.fileno()})}
        arguments = [sys.executable, *sys.orig_argv[1:]]
        if role["kind"] == "executor":
            return os.posix_spawn(sys.executable, arguments, environment, setpgroup=0)
        return os.posix_spawn(sys.executable, arguments, environment)
    finally:
        sock.set_inheritable(False)


def _in_child(kind: str, inherited: list[socket.socket]) -> None:
    """Turn a fork of the supervisor into a process of its own kind."""
    die_with_parent()
    signal.set_wakeup_fd(-1)
    for signum in _SUPERVISORS_SIGNALS:
        signal.signal(signum, no_operation)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(RuntimeError, AttributeError):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    for sock in inherited:
        sock.close()
    enter_process(kind)
    random.seed()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere a closed socket says so)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _leave(body: Callable[[], int]) -> NoReturn:
    """Run the body of a child and end the process without running the parent's exit handlers."""
    status = 1
    try:
        status = body()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        logger.critical("A %s of the worker ended with an error", "process", exc_info=True)
    finally:
        logging.shutdown()
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
