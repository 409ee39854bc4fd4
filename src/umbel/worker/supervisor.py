"""The process that outlives the others: it forks consumer and executors, watches them, and owns the signals.

It has one thread and no connection, so that forking is safe; it runs no task. Consumer and executors of one
session live and die together: when the consumer dies, what its executors run can no longer be settled.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from umbel.worker.children import Launcher, describe_exit
from umbel.worker.link import Link, Note
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Progress, sweep

logger = logging.getLogger("umbel.worker")

#: Pause before a new session or executor after one that failed early: first and last (seconds).
_BACKOFF_FIRST, _BACKOFF_LAST = 0.05, 5.0
#: One that lived this long counts as healthy (seconds).
_HEALTHY_AFTER = 5.0
#: Two signals of a kind within this time are one (seconds).
_ECHO = 0.1
#: How long children get to exit by themselves at the end.
_EXIT_WAIT = 5.0
#: Threads that a pool without processes may give up before its session starts anew.
_SPARE_SLOTS = 32
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)


@dataclass
class Child:
    """An executor process."""

    slot: int
    pid: int
    #: The last job that its slot's previous executor had begun.
    begun_before: int
    born: float = field(default_factory=time.monotonic)


@dataclass
class Session:
    """A consumer, its executors, and what belongs to them."""

    owner: str
    progress: Progress
    link: Link
    consumer: int
    executors: dict[int, Child] = field(default_factory=dict)
    born: float = field(default_factory=time.monotonic)
    ready: bool = False


class Supervisor:
    """Runs one worker until a signal or an order ends it."""

    def __init__(
        self,
        options: WorkerOptions,
        launcher: Launcher,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_stopping: Callable[[int, str], None] = lambda _signum, _how: None,
    ) -> None:
        self.options = options
        self._launcher = launcher
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._selector = selectors.DefaultSelector()
        self._session: Session | None = None
        self._level = 0
        self._status = 0
        self._backoff = _BACKOFF_FIRST
        #: When to fork again: monotonic time → slot; slot -1 is a whole session.
        self._later: list[tuple[float, int]] = []
        self._announced = False
        self._last_signal: dict[int, float] = {}
        #: Sessions whose processes have all ended without handing back what they held, and when (monotonic time).
        self._buried: list[tuple[float, str]] = []
        self._slots = options.concurrency if launcher.forks_executors else 0

    # --- life ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start, serve, stop; return the exit status (0 after TERM, 1 after INT or a cold shutdown)."""
        sweep(time.time())
        wakeup_read, wakeup_write = socket.socketpair()
        wakeup_read.setblocking(False)
        wakeup_write.setblocking(False)
        signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        for signum in _SIGNALS:
            signal.signal(signum, lambda *_: None)
        self._selector.register(wakeup_read, selectors.EVENT_READ, "signals")
        try:
            self._start_session()
            while self._session is not None or self._later:
                for key, _events in self._selector.select(self._pause()):
                    if key.data == "signals":
                        self._on_signals(wakeup_read.recv(4096))
                    else:
                        self._on_link(key.data)
                self._start_what_is_due()
        finally:
            signal.set_wakeup_fd(-1)
        return self._status

    def _pause(self) -> float | None:
        if not self._later:
            return None
        return max(0.0, min(when for when, _slot in self._later) - time.monotonic())

    def _start_session(self) -> None:
        owner = f"{self.options.hostname}:{uuid.uuid4().hex}"
        try:
            progress = Progress.create(owner, self._slots or self.options.concurrency + _SPARE_SLOTS)
            ours, theirs = socket.socketpair()
        except OSError as exc:
            self._postpone(-1, f"cannot start a session: {exc}")
            return
        try:
            pid = self._launcher.fork_consumer(owner, progress, ours, theirs, self._dead_owners())
        except OSError as exc:
            ours.close()
            theirs.close()
            progress.remove()
            self._postpone(-1, f"cannot start the consumer: {exc}")
            return
        theirs.close()
        self._session = Session(owner, progress, Link(ours), pid)
        self._selector.register(ours, selectors.EVENT_READ, self._session)
        for slot in range(self._slots):
            self._start_executor(slot)

    def _dead_owners(self) -> tuple[str, ...]:
        """Return the sessions that are dead for certain and whose leases may not have lapsed yet."""
        now = time.monotonic()
        self._buried = [(when, owner) for when, owner in self._buried if now - when < self.options.lease]
        return tuple(owner for _when, owner in self._buried)

    def _start_executor(self, slot: int) -> None:
        session = self._session
        if session is None or self._level:
            return
        begun = session.progress.slot(slot).started()
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            self._postpone(slot, f"cannot start executor {slot}: {exc}")
            return
        try:
            pid = self._launcher.fork_executor(slot, session.progress, ours, theirs, session.link.sock)
        except OSError as exc:
            ours.close()
            self._postpone(slot, f"cannot start executor {slot}: {exc}")
            return
        finally:
            theirs.close()
        session.executors[pid] = Child(slot, pid, begun)
        with suppress(OSError):
            # A consumer that is gone is dealt with when its end is reaped.
            session.link.send(Note("executor", slot=slot, pid=pid), ours.fileno())
        ours.close()

    def _postpone(self, slot: int, why: str) -> None:
        logger.error("%s; trying again in %.2g s", why, self._backoff)
        self._later.append((time.monotonic() + self._backoff, slot))
        self._backoff = min(self._backoff * 2, _BACKOFF_LAST)

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        due = [slot for when, slot in self._later if when <= now]
        self._later = [(when, slot) for when, slot in self._later if when > now]
        for slot in due:
            if self._level:
                continue
            if slot < 0:
                self._start_session()
            else:
                self._start_executor(slot)

    # --- what children say and do ------------------------------------------------------------------------------

    def _on_link(self, session: Session) -> None:
        notes = session.link.receive()
        if notes is None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(session.link.sock)
            return
        for note in notes:
            if note.what == "ready":
                session.ready = True
                if not self._announced:
                    self._announced = True
                    self._on_ready()
            elif note.what == "kill":
                self._kill(session, note)
            elif note.what == "shutdown":
                self._shut_down(1, signal.SIGTERM)
            elif note.what == "cold-shutdown":
                self._shut_down(2, signal.SIGQUIT)

    def _kill(self, session: Session, note: Note) -> None:
        """Send a signal for the consumer; SIGKILL goes to the executor's whole process group."""
        child = session.executors.get(note.pid)
        if child is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if note.signal == signal.SIGKILL:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                os.kill(child.pid, note.signal)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            session = self._session
            if session is None:
                continue
            if pid == session.consumer:
                self._consumer_ended(session, status)
            elif pid in session.executors:
                self._executor_ended(session, session.executors.pop(pid), status)

    def _executor_ended(self, session: Session, child: Child, status: int) -> None:
        how = describe_exit(status)
        with suppress(ProcessLookupError, PermissionError):
            # What a killed task had started itself goes with it.
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(OSError):
            session.link.send(Note("exited", slot=child.slot, pid=child.pid, text=how))
        if self._level:
            return
        if status == 0 or time.monotonic() - child.born > _HEALTHY_AFTER:
            self._backoff = _BACKOFF_FIRST
            self._start_executor(child.slot)
        elif session.progress.slot(child.slot).started() > child.begun_before or time.monotonic() - child.born > 0.5:
            # It was up and a task took it down: that is no reason to leave the slot empty.
            self._start_executor(child.slot)
        else:
            self._postpone(child.slot, f"executor {child.slot} (pid {child.pid}) ended right after its start ({how})")

    def _consumer_ended(self, session: Session, status: int) -> None:
        self._end_session(session, kill=self._level == 0 or status != 0)
        if self._level:
            self._status = self._status or (0 if status == 0 else 1)
            self._later.clear()
            return
        logger.error("The consumer (pid %d) ended (%s); starting a new one", session.consumer, describe_exit(status))
        if time.monotonic() - session.born > _HEALTHY_AFTER:
            self._backoff = _BACKOFF_FIRST
            self._start_session()
        elif session.ready and self._backoff == _BACKOFF_FIRST:
            self._backoff = 2 * _BACKOFF_FIRST
            self._start_session()
        else:
            self._postpone(-1, "the consumer does not stay up")

    def _end_session(self, session: Session, *, kill: bool) -> None:
        """Wait for the executors of a session whose consumer is gone; kill them if they are not to be waited for."""
        self._session = None
        with suppress(KeyError, ValueError):
            self._selector.unregister(session.link.sock)
        session.link.close()
        deadline = time.monotonic() + (0.0 if kill else _EXIT_WAIT)
        while session.executors:
            if time.monotonic() >= deadline:
                for pid in session.executors:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)
                deadline = time.monotonic() + _EXIT_WAIT
            try:
                pid, _status = os.waitpid(-1, 0 if kill else os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                time.sleep(0.005)
            session.executors.pop(pid, None)
        if not session.executors:
            self._buried.append((time.monotonic(), session.owner))
        if not kill:
            session.progress.remove()

    # --- the shutdown ladder -----------------------------------------------------------------------------------

    def _on_signals(self, data: bytes) -> None:
        for signum in data:
            if signum == signal.SIGCHLD:
                self._reap()
            elif self._is_echo(signum):
                continue
            elif signum in (signal.SIGTERM, signal.SIGINT):
                cold = self._launcher.remaps_sigterm and signum == signal.SIGTERM
                self._shut_down(2 if cold else self._level + 1, signum)
            elif signum == signal.SIGQUIT:
                self._shut_down(max(2, self._level + 1), signum)
            elif signum == signal.SIGUSR1:
                self._launcher.dump_stacks()

    def _is_echo(self, signum: int) -> bool:
        """Tell whether the same signal came a moment ago: a shell or `timeout` may send it to the process and to
        its group, which is one order and not two.
        """
        now = time.monotonic()
        echo = now - self._last_signal.get(signum, -1.0) < _ECHO
        self._last_signal[signum] = now
        return echo

    def _shut_down(self, level: int, signum: int) -> None:
        """Go to a level of the ladder: 1 warm, 2 cold, 3 at once. Levels never go down."""
        session = self._session
        if level <= self._level:
            return
        self._level = level
        if signum != signal.SIGTERM or level > 1:
            self._status = 1
        self._on_stopping(signum, "Warm" if level == 1 else "Cold")
        if session is None:
            self._later.clear()
            return
        if level >= 3:
            os.kill(session.consumer, signal.SIGKILL)
            return
        grace = self.options.grace if level == 1 else self.options.soft_shutdown
        with suppress(OSError):
            session.link.send(Note("stop", seconds=-1.0 if grace is None else grace))
