"""A file with the process id of a worker, locked as long as the worker lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from umbel.cli.failures import EX_CANTCREAT

__all__ = ["locked_pidfile"]


class _CannotCreate(click.ClickException):
    exit_code = EX_CANTCREAT


@contextmanager
def locked_pidfile(name: str) -> Iterator[None]:
    """Hold the file `name` with this process' id in it; exit status 73 if another process holds it.

    The lock decides and not the number in the file, so a file left over by a killed worker is no obstacle, not even
    when its number belongs to another process by now.
    """
    path = Path(name)
    descriptor = _acquire(path)
    owner = os.getpid()
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner}\n".encode(), 0)
        yield
    finally:
        if os.getpid() == owner:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    try:
        import fcntl
    except ImportError:
        raise click.UsageError("--pidfile is not supported on this system: it has no file locks (flock)") from None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _CannotCreate(f"the pidfile {path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise _CannotCreate(
                f"a worker (pid {pid}) runs already: it holds {path}. Stop it, or give this one another --pidfile"
            ) from None
        if _is_still(path, descriptor):
            return descriptor
        # Its former owner removed the file between our opening and our locking it.
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
