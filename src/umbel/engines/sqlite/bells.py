"""Doorbells: how a commit of one process wakes another that waits, within microseconds and without polling.

Each waiting process keeps named pipes in the directory `<file>-bells`, one per thing it waits for. Whoever commits
writes one byte to each pipe of that kind. A pipe that has no reader any more says that its process is dead. Where
named pipes cannot be made (some file systems, Windows), waiting still works: only threads of its own process can
then ring a bell, and its owner looks by itself every now and then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import select
import threading
import time
import weakref
from pathlib import Path

#: Kinds of bells: new messages for consumers, results, the bus.
QUEUE, RESULT, BUS = "q", "r", "b"

#: Seconds between looks where bells can be heard (they may get lost) and where they cannot (first, longest).
RECHECK = 1.0
RECHECK_DEAF = (0.01, 0.25)

#: A directory's time of change has a resolution: a listing younger than this may have missed a newcomer.
_SETTLED_NS = 50_000_000
#: Seconds after which the pipe of a dead consumer is garbage; until then it tells `recover` that its owner died.
_GARBAGE = 3600.0

_bells: weakref.WeakSet[Bell] = weakref.WeakSet()
_ringers: weakref.WeakSet[Ringer] = weakref.WeakSet()


def file_name(kind: str, name: str) -> str:
    """Return the file name of the bell that `name` (free text) owns."""
    return f"{kind}-{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


class Bell:
    """One thing that can be waited for: rung by other processes, woken by threads of this one."""

    def __init__(self, folder: str, kind: str, name: str) -> None:
        self._path = Path(folder, file_name(kind, name))
        self._woken = False
        self._step = RECHECK_DEAF[0]
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._pipe = -1
        self._open()
        _bells.add(self)

    @property
    def audible(self) -> bool:
        """True when other processes can ring it."""
        return self._pipe >= 0

    def _open(self) -> None:
        """Make the pipe under another name first: a pipe without a reader would be taken for a dead owner's."""
        with contextlib.suppress(OSError, AttributeError):
            poll = select.poll()
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            fresh = self._path.with_name(f"n-{secrets.token_hex(8)}")
            os.mkfifo(fresh, 0o600)
            try:
                pipe = os.open(fresh, os.O_RDWR | os.O_NONBLOCK)
                fresh.rename(self._path)
            except OSError:
                fresh.unlink(missing_ok=True)
                raise
            poll.register(pipe, select.POLLIN)
            self._poll, self._inode, self._pipe = poll, os.fstat(pipe).st_ino, pipe

    def drain(self) -> bool:
        """Forget the rings so far; True when a thread asked for the wait to end. Drain, then look, then wait."""
        self._event.clear()
        if self.audible:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, 65536)
        woken, self._woken = self._woken, False
        return woken

    def wait(self, seconds: float) -> None:
        """Wait for a ring, at most `seconds` and never longer than it is safe not to look."""
        if not self.audible:
            rang = self._event.wait(max(0.0, min(seconds, self._step)))
            self._step = RECHECK_DEAF[0] if rang else min(self._step * 1.5, RECHECK_DEAF[1])
        elif not self._poll.poll(max(0.0, min(seconds, RECHECK)) * 1000) and seconds >= RECHECK:
            self._restore()

    def _restore(self) -> None:
        """Put the pipe back when somebody has removed it."""
        try:
            if self._path.stat().st_ino == self._inode:
                return
        except OSError:
            pass
        with self._lock:
            if self.audible:
                self._close_pipe()
                self._open()

    def wake(self) -> None:
        """End the wait of another thread, or its next one."""
        self._woken = True
        self._event.set()
        with self._lock, contextlib.suppress(OSError):
            if self.audible:
                os.write(self._pipe, b"\0")

    def close(self) -> None:
        """Stop waiting for good and remove the pipe."""
        with self._lock:
            if self.audible:
                with contextlib.suppress(OSError):
                    if self._path.stat().st_ino == self._inode:
                        self._path.unlink()
            self._close_pipe()

    def abandon(self) -> None:
        """Let go of the files of the process that this one was forked from, so that its death can be seen."""
        self._close_pipe()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            with contextlib.suppress(OSError):
                os.close(pipe)


class Own:
    """The bells of one kind that this process waits at, by name."""

    def __init__(self, folder: str, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._bells: dict[str, Bell] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        #: The process that was woken before it had a bell; 0 for none.
        self._woken_early = 0

    def get(self, name: str) -> Bell:
        """Return the bell called `name`, made now unless this process has it."""
        if self._process != os.getpid():
            self._lock = threading.Lock()
            self._bells.clear()
            self._process = os.getpid()
        bell = self._bells.get(name)
        if bell is None:
            with self._lock:
                bell = self._bells.get(name)
                if bell is None:
                    bell = self._bells[name] = Bell(self._folder, self._kind, name)
                    if self._woken_early == self._process:
                        self._woken_early = 0
                        bell.wake()
        return bell

    def wake(self) -> None:
        """Wake whoever waits at one of them, or will at the first."""
        # First, since another thread may be making it.
        self._woken_early = os.getpid()
        bells = list(self._bells.values()) if self._process == os.getpid() else []
        if bells:
            self._woken_early = 0
        for bell in bells:
            bell.wake()

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            while self._bells:
                _, bell = self._bells.popitem()
                if self._process == os.getpid():
                    bell.close()


class Ringer:
    """Rings the bells of other processes; keeps their pipes open between rings."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._seen = -1
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        _ringers.add(self)

    def ring(self, kind: str) -> None:
        """Ring every bell of this kind. Never fails: who waits looks by itself now and then."""
        try:
            changed = os.stat(self._folder).st_mtime_ns  # noqa: PTH116 - every publish pays it
        except OSError:
            return
        with self._lock:
            if changed != self._seen:
                self._refresh(changed)
            for name, descriptor in list(self._open.items()):
                if name[0] == kind:
                    try:
                        os.write(descriptor, b"\0")
                    except BlockingIOError:
                        pass  # a full pipe has been rung already
                    except OSError:
                        self._forget(name)

    def _refresh(self, changed: int) -> None:
        with contextlib.suppress(OSError):
            names = {path.name for path in Path(self._folder).iterdir() if path.name[:2] in {"q-", "r-", "b-"}}
            for name in list(self._open):
                if name not in names or not self._is_same(name):
                    os.close(self._open.pop(name))
            for name in names - self._open.keys():
                self._add(name)
            self._seen = changed if time.time_ns() - changed > _SETTLED_NS else -1

    def _is_same(self, name: str) -> bool:
        try:
            return Path(self._folder, name).stat().st_ino == os.fstat(self._open[name]).st_ino
        except OSError:
            return False

    def _add(self, name: str) -> None:
        path = Path(self._folder, name)
        try:
            self._open[name] = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                self._remove_garbage(path)

    @staticmethod
    def _remove_garbage(path: Path) -> None:
        with contextlib.suppress(OSError):
            if path.name[0] != QUEUE or time.time() - path.stat().st_mtime > _GARBAGE:
                path.unlink()

    def _forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.close(self._open.pop(name))
        self._seen = -1

    def is_dead(self, owner: str) -> bool:
        """True when the owner's pipe is there and nobody reads it: its process has died on this machine."""
        if not hasattr(os, "mkfifo"):
            return False
        path = Path(self._folder, file_name(QUEUE, owner))
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def remove(self, owner: str) -> None:
        """Remove the pipe of an owner that is dead."""
        with contextlib.suppress(OSError):
            Path(self._folder, file_name(QUEUE, owner)).unlink()

    def close(self) -> None:
        """Let go of the pipes."""
        with self._lock:
            while self._open:
                with contextlib.suppress(OSError):
                    os.close(self._open.popitem()[1])
            self._seen = -1

    def after_fork(self) -> None:
        """Begin with nothing in a child: what the parent had open is closed, its lock may have been held."""
        self._lock = threading.Lock()
        self.close()


def _after_fork_in_child() -> None:
    for bell in list(_bells):
        bell.abandon()
    _bells.clear()
    for ringer in list(_ringers):
        ringer.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
