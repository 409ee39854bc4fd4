"""What SQLite's error codes mean to somebody who runs a task queue."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from umbel.core.errors import EngineBusy, OperationalError, StorageFull

#: Codes after which trying again is all that is needed: BUSY, LOCKED, PROTOCOL.
_PASSING = frozenset({5, 6, 15})
#: Codes after which the connection is not to be trusted: IOERR, CORRUPT, CANTOPEN, NOTADB, READONLY, NOMEM.
_BROKEN = frozenset({7, 8, 10, 11, 14, 26})
#: Codes of values that do not fit: TOOBIG, CONSTRAINT (NULL, which is what SQLite makes of NaN).
_UNSTORABLE = frozenset({18, 19})
#: Extended codes of failed writes: WRITE, FSYNC, DIR_FSYNC, TRUNCATE, SHMSIZE.
_WRITE_FAILED = frozenset({778, 1034, 1290, 1546, 4874})


class Unstorable(OperationalError):
    """A value of the call cannot be stored, whatever the state of the file."""


#: What a call raises when one of its values cannot be stored; the last two come from Python's binding of values.
UNSTORABLE = (Unstorable, UnicodeEncodeError, OverflowError)


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's extended result code; 0 where the error does not carry one."""
    return getattr(error, "sqlite_errorcode", 0) or 0


def is_passing(error: sqlite3.Error) -> bool:
    """True when another process or thread is in the way and trying again will do."""
    return code_of(error) & 0xFF in _PASSING


def is_broken(error: sqlite3.Error) -> bool:
    """True when the connection should be opened anew before it is used again."""
    return code_of(error) & 0xFF in _BROKEN


def busy(file: str, seconds: float) -> EngineBusy:
    """Return the error for a lock that was not given within the deadline."""
    return EngineBusy(
        f"{file} was locked by others for {seconds:g} seconds; look for a program that holds a transaction open "
        "(a database browser, a backup), or raise `busy_timeout` in the URL"
    )


def replaced(file: str) -> OperationalError:
    """Return the error for a file that was deleted or replaced while it was in use."""
    return OperationalError(
        f"{file} was deleted or replaced while it was in use: what was in the old file, also what was stored during "
        "the last second, is not in the new one. The next call uses the new file; stop every process before moving one"
    )


def replaced_with_log(file: str) -> OperationalError:
    """Return the error for a file that was put in the place of one in use, whose log is still there."""
    return OperationalError(
        f"{file} was replaced while it was in use, and {file}-wal still belongs to the old file, so that using both "
        f"would damage the new one: stop every process that uses it, remove {file}-wal and {file}-shm, start again"
    )


def translate(error: sqlite3.Error, file: str) -> Exception:
    """Return the umbel error that says what happened to `file` and what to do."""
    code = code_of(error)
    primary = code & 0xFF
    if primary in _PASSING:
        return EngineBusy(f"{file} is locked by another program: {error}")
    if primary == 13:
        return StorageFull(f"the disk that holds {file} is full; nothing of this call was stored: make room")
    if primary == 8:
        return StorageFull(
            f"{file} cannot be written ({error}); nothing of this call was stored: "
            "check the owner and mode of the file and its directory, and that the disk is not mounted read-only"
        )
    if code in _WRITE_FAILED:
        return StorageFull(
            f"{file} could not be written ({error}); nothing of this call was stored: "
            "check free space, quotas and file size limits"
        )
    if primary == 10:
        return OperationalError(f"{file} could not be read or written ({error}): check the disk")
    if primary == 11:
        return OperationalError(
            f"{file} is damaged ({error}): stop every process that uses it, then move it away or restore a backup"
        )
    if primary == 26:
        return OperationalError(f"{file} is not a SQLite database: name another file in the URL")
    if primary == 14:
        return OperationalError(_cannot_open(file))
    if primary in _UNSTORABLE or isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError):
        return Unstorable(f"{file}: {error}; nothing of this call was stored")
    return OperationalError(f"{file}: {error}")


def _cannot_open(file: str) -> str:
    folder = Path(file).parent
    if not folder.is_dir():
        return f"cannot open {file}: the directory {folder} does not exist; create it or change the URL"
    if Path(file).is_dir():
        return f"cannot open {file}: it is a directory; the URL must name a file"
    return f"cannot open {file}: check the owner and mode of the file and of {folder}"
