"""What every executor has started, in memory that outlives the processes which write it.

One file per consumer session, mapped by the consumer and its executors. An executor writes the number of the
job it begins (numbers grow) and when; nobody asks it, so a killed one has still told how far it got. A later
worker on this host reads the file of a dead session to tell started messages from those that only waited.

The last word of the file is the consumer's: until when it may be sure of its leases. What an executor has not begun
by then is not begun: whoever took the messages over was told that they only waited, and runs them.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import tempfile
import time
from pathlib import Path

from umbel.worker.bodies import Bodies
from umbel.worker.ring import Rings

#: A slot has four words: number started, number finished, monotonic start time (double), and the number of the job
#: after which the executor may go on by itself. Each is written through a memoryview, which stores it in one step;
#: `struct.pack_into` clears the place first, and a reader may see that.
_WORDS = 4
_SLOT_BYTES = 8 * _WORDS
_LEASE_BYTES = 8
MAX_SLOTS = 4096
#: Files of sessions that nobody recovered are removed after this many seconds.
_KEEP = 7 * 86400.0
#: Leases lapse while the machine sleeps; the monotonic clock of Linux stands still then.
_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def directory() -> Path:
    """Return the private directory of this user's progress files, made if need be."""
    path = Path(tempfile.gettempdir()) / f"umbel-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    path.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user; set TMPDIR to a directory of your own")
    return path


def _path(session: str) -> Path:
    return directory() / f"{hashlib.sha256(session.encode()).hexdigest()[:32]}.progress"


class Progress:
    """The mapped file of one session."""

    def __init__(
        self, mapped: mmap.mmap, path: Path, session: str, rings: Rings | None = None, bodies: Bodies | None = None
    ) -> None:
        self._map = mapped
        self._path = path
        self.session = session
        #: Where executors find large bodies; None in a process that did not inherit it.
        self.bodies = bodies
        #: Where executors put their reports; None in a process that did not inherit it.
        self.rings = rings

    @classmethod
    def create(cls, session: str, slots: int) -> Progress:
        """Make the file for `session` with room for `slots` executors."""
        path = _path(session)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            size = _SLOT_BYTES * slots + _LEASE_BYTES
            os.ftruncate(fd, size)
            made = cls(mmap.mmap(fd, size), path, session, Rings(slots), Bodies(slots))
        finally:
            os.close(fd)
        made.hold(math.inf, 0.0)
        return made

    @classmethod
    def open(cls, session: str) -> Progress | None:
        """Open the file that `session` left behind on this host; None where there is none."""
        path = _path(session)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            size = os.fstat(fd).st_size
            return cls(mmap.mmap(fd, size, prot=mmap.PROT_READ), path, session) if size else None
        finally:
            os.close(fd)

    @classmethod
    def attach(cls, session: str) -> Progress:
        """Map the file of a living session to write into it (a process that did not inherit the mapping)."""
        path = _path(session)
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            return cls(mmap.mmap(fd, os.fstat(fd).st_size), path, session)
        finally:
            os.close(fd)

    @property
    def slots(self) -> int:
        """How many executors the file has room for."""
        return (len(self._map) - _LEASE_BYTES) // _SLOT_BYTES

    def slot(self, index: int) -> Slot:
        """Return the slot of one executor."""
        return Slot(self._map, index)

    def hold(self, seconds: float, since: float) -> None:
        """Say that leases stand for `seconds` from `since`, a time of `lease_clock` (consumer)."""
        _lease_word(self._map)[0] = since + seconds

    def was_started(self, index: int, number: int) -> bool:
        """Tell whether executor `index` has begun job `number`; a slot that is not there counts as begun."""
        if index >= self.slots:
            return True
        return self.slot(index).started() >= number

    def remove(self) -> None:
        """Delete the file; mappings of running processes stay valid."""
        self._path.unlink(missing_ok=True)


def lease_clock() -> float:
    """Return the time by which leases are counted here (seconds; comparable between processes of this machine)."""
    return time.clock_gettime(_LEASE_CLOCK)


def _lease_word(mapped: mmap.mmap) -> memoryview[float]:
    return memoryview(mapped)[-_LEASE_BYTES:].cast("d")


class Slot:
    """One executor's place in the file: written by the executor and read by the consumer, all but what it may do."""

    __slots__ = ("_lease", "_numbers", "_since")

    def __init__(self, mapped: mmap.mmap, index: int) -> None:
        place = memoryview(mapped)[_SLOT_BYTES * index : _SLOT_BYTES * (index + 1)]
        self._numbers = place.cast("Q")
        self._since = place.cast("d")
        self._lease = _lease_word(mapped)

    def is_leased(self) -> bool:
        """Tell whether what this session has leased is its own still, for all that is known here (executor)."""
        return self._lease[0] > time.clock_gettime(_LEASE_CLOCK)

    def start(self, number: int) -> None:
        """Say that job `number` begins now (executor). Numbers grow."""
        self._since[2] = time.monotonic()
        self._numbers[0] = number

    def take_back(self) -> None:
        """Say that what was said to begin has not begun (executor)."""
        self._numbers[0] = self._numbers[1]

    def since(self) -> float:
        """Return the monotonic time at which the last job began."""
        return self._since[2]

    def finish(self, number: int) -> None:
        """Say that nothing runs any more up to `number` (executor)."""
        self._numbers[1] = number

    def allow(self, number: int) -> None:
        """Say that the executor may go on by itself after this job (consumer); 0: not any more."""
        self._numbers[3] = number

    def allowed(self) -> int:
        """Return the number of the job after which the executor may go on by itself; 0 for none."""
        return self._numbers[3]

    def started(self) -> int:
        """Return the highest number that has begun."""
        return self._numbers[0]

    def running(self) -> tuple[int, float] | None:
        """Return the job that runs now and the monotonic time it began at; None when idle."""
        finished, started = self._numbers[1], self._numbers[0]
        return (started, self._since[2]) if started > finished else None


def sweep(now: float) -> None:
    """Remove files of sessions that are long over."""
    for path in directory().glob("*.progress"):
        try:
            if now - path.stat().st_mtime > _KEEP:
                path.unlink(missing_ok=True)
        except OSError:
            continue
