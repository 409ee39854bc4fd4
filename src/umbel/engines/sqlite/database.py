"""Connections to one SQLite file: a connection per thread, write transactions that wait their turn, and forks."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from umbel.core.errors import OperationalError
from umbel.engines.sqlite import failures, schema
from umbel.engines.sqlite.location import Location

P = ParamSpec("P")
T = TypeVar("T")

#: What cannot be closed before a fork is kept for ever in the child: SQLite must never finalise it there.
_inherited: list[sqlite3.Connection] = []
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
#: A checkpoint writes every changed page and flushes twice. Workers do it, after 40 MB of -wal; a process that only
#: publishes (a web request waits for it) does so only where no worker has for 160 MB.
WORKER_LOG_PAGES, CLIENT_LOG_PAGES = 10_000, 40_000
_FIRST_PAUSE = 0.00003
_LONGEST_PAUSE = 0.002
#: Seconds between looks whether the file that is open is still the one that the name leads to.
_LOOK_AT_FILE = 1.0


class _Slot:
    """One thread's place for a connection; `lock` is held while the connection is in use."""

    __slots__ = ("__weakref__", "identity", "lock", "log", "look_at", "raw")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.raw: sqlite3.Connection | None = None
        #: Device and inode of the open file and of its log, and when (monotonic) to compare them with their names'.
        self.identity = self.log = (0, 0)
        self.look_at = 0.0


class Database:
    """One SQLite file as this process sees it; connections open at first use."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.file = location.file
        self._local = threading.local()
        self._slots: weakref.WeakSet[_Slot] = weakref.WeakSet()
        self._slots_lock = threading.Lock()
        self._turn = threading.RLock()
        #: After how many pages of -wal a commit of this process moves them into the file.
        self.log_pages = CLIENT_LOG_PAGES
        #: Grows whenever a connection is opened: what was remembered about the file may be out of date.
        self.openings = 0
        #: What the log of a file that was replaced begins with; empty where there is none.
        self._old_log = b""
        _databases.add(self)

    def write(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` as one transaction: all of it is stored, or none and an error is raised."""
        slot = self._slot()
        # Threads of one process queue up here: the database's own lock can only be asked for again and again.
        with self._turn, slot.lock:
            connection = self._connection(slot)
            if connection.in_transaction:
                raise OperationalError(
                    f"{self.file}: a signal handler tried to write while the code it interrupted was writing; "
                    "let the handler set a flag or raise, and write afterwards"
                )
            # A signal's handler may raise anywhere in here, also just behind BEGIN: nothing may stay open then.
            try:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.Error as error:
                    self._begin(slot, connection, error)
                value = work(connection, *args, **kwargs)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._abandon(slot, connection, error)
                raise failures.translate(error, self.file) from error
            except BaseException:
                self._abandon(slot, connection, None)
                raise
            return value

    def read(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)`, which only reads; each statement sees one state of the file."""
        slot = self._slot()
        with slot.lock:
            pause, deadline = _FIRST_PAUSE, 0.0
            while True:
                connection = self._connection(slot)
                try:
                    return work(connection, *args, **kwargs)
                except sqlite3.Error as error:
                    self._abandon(slot, connection, error)
                    if not failures.is_passing(error):
                        raise failures.translate(error, self.file) from error
                    deadline = deadline or time.monotonic() + self.location.busy_timeout
                    pause = self._pause(pause, deadline, error)

    def look_after_log(self) -> None:
        """Say that this process is a worker: its commits move the log into the file sooner than a publisher's."""
        if self.log_pages == WORKER_LOG_PAGES:
            return
        self.log_pages = WORKER_LOG_PAGES
        with self._slots_lock:
            slots = list(self._slots)
        for slot in slots:
            with slot.lock:
                if slot.raw is not None:
                    slot.raw.execute(f"PRAGMA wal_autocheckpoint = {WORKER_LOG_PAGES}")

    def close(self) -> None:
        """Close every connection of this process; the next call opens one again."""
        with self._slots_lock:
            slots = list(self._slots)
        for slot in slots:
            with slot.lock:
                self._discard(slot)

    # --- opening -----------------------------------------------------------------------------------------

    def _slot(self) -> _Slot:
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = self._local.slot = _Slot()
            with self._slots_lock:
                self._slots.add(slot)
        return slot

    def _connection(self, slot: _Slot) -> sqlite3.Connection:
        if slot.raw is None:
            return self._open(slot)
        now = time.monotonic()
        if now >= slot.look_at and not slot.raw.in_transaction:
            slot.look_at = now + _LOOK_AT_FILE
            if self.location.identity() != slot.identity:
                raise self._replaced(slot)
        return slot.raw

    def _replaced(self, slot: _Slot) -> OperationalError:
        """Let go of a file that is not the one of this name any more; return the error to raise."""
        self.openings += 1
        if self.location.identity("-wal") == slot.log:
            self._old_log = self.location.log_mark()
        self._discard(slot)
        with self._slots_lock:
            for other in self._slots:
                other.look_at = 0.0
        return failures.replaced(self.file)

    def _refuse_old_log(self) -> None:
        """SQLite would write the log that belongs to the old file into the one that has taken its place."""
        if self._old_log and Path(self.file).stat().st_size and self.location.log_mark() == self._old_log:
            raise failures.replaced_with_log(self.file)
        self._old_log = b""

    def _open(self, slot: _Slot) -> sqlite3.Connection:
        self.location.create_file()
        self._refuse_old_log()
        slot.identity, slot.look_at = self.location.identity(), time.monotonic() + _LOOK_AT_FILE
        try:
            connection = sqlite3.connect(
                self.file, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=200
            )
        except sqlite3.Error as error:
            raise failures.translate(error, self.file) from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise failures.translate(error, self.file) from error
        except BaseException:
            connection.close()
            raise
        slot.raw, slot.log = connection, self.location.identity("-wal")
        self.openings += 1
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self.location.busy_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                if not schema.check(connection, self.file):
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        schema.migrate(connection, self.file)
                        connection.execute("COMMIT")
                    except BaseException:
                        connection.execute("ROLLBACK")
                        raise
                for name, value in self.location.pragmas:
                    connection.execute(f"PRAGMA {name} = {value}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {self.log_pages}")
                return
            except sqlite3.Error as error:
                if not failures.is_passing(error):
                    raise
                pause = self._pause(pause, deadline, error)

    # --- waiting for the turn ----------------------------------------------------------------------------

    def _begin(self, slot: _Slot, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Get the write lock that was not free at once, trying often at first: SQLite's own wait starts at 1 ms."""
        deadline = time.monotonic() + self.location.busy_timeout
        pause = _FIRST_PAUSE
        while True:
            if not failures.is_passing(error):
                self._abandon(slot, connection, error)
                raise failures.translate(error, self.file) from error
            pause = self._pause(pause, deadline, error)
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as again:
                error = again

    def _pause(self, pause: float, deadline: float, error: sqlite3.Error) -> float:
        if time.monotonic() >= deadline:
            raise failures.busy(self.file, self.location.busy_timeout) from error
        time.sleep(random.uniform(pause / 2, pause))
        return min(pause * 1.5, _LONGEST_PAUSE)

    def _abandon(self, slot: _Slot, connection: sqlite3.Connection, error: sqlite3.Error | None) -> None:
        # Before the lock is let go: nobody may write with what this transaction made others remember.
        self.openings += 1
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if connection.in_transaction or (error is not None and failures.is_broken(error)):
            self._discard(slot)

    @staticmethod
    def _discard(slot: _Slot) -> None:
        connection, slot.raw = slot.raw, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # --- forks -------------------------------------------------------------------------------------------
    # SQLite remembers locks and shared memory per process and inherits that memory in a fork: a child that opened
    # the same file again would believe it held locks that it does not hold. So nothing may be open at the fork.

    def before_fork(self, seconds: float) -> None:
        """Close the idle connections and keep them from being opened until the fork is done."""
        self._slots_lock.acquire()
        for slot in list(self._slots):
            if slot.lock.acquire(timeout=seconds):
                self._discard(slot)

    def after_fork(self, *, child: bool) -> None:
        """Let go of the locks (parent), or begin with nothing (child)."""
        if child:
            _inherited.extend(slot.raw for slot in self._slots if slot.raw is not None)
            self._local = threading.local()
            self._slots = weakref.WeakSet()
            self._slots_lock = threading.Lock()
            self._turn = threading.RLock()
            self.openings += 1
            return
        for slot in list(self._slots):
            with contextlib.suppress(RuntimeError):
                slot.lock.release()
        self._slots_lock.release()


_forking: list[Database] = []


def _before_fork() -> None:
    _forking[:] = list(_databases)
    for database in _forking:
        database.before_fork(seconds=10.0)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork(child=False)


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork(child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
