"""The SQLite file of a host and user that remembers what has started where no store does (`engine/shelf.py`)."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path

from umbel.core.errors import ImproperlyConfigured
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine

__all__ = ["open_shelf_file"]


def open_shelf_file(url: str) -> Engine:
    """Return the engine of the file that keeps what workers here have started from the broker `url`."""
    # One file for each broker and host: home directories may be shared by many.
    name = hashlib.sha256(f"{socket.gethostname()}\0{url}".encode()).hexdigest()[:16]
    return open_engine(f"sqlite:///{_directory()}/shelf-{name}.db")


def _directory() -> Path:
    """Return a directory of this user that outlives the process, made if need be."""
    tried = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "umbel"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    path = tried
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    if not usable:
        path = Path(tempfile.gettempdir()) / f"umbel-{user}"
        path.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
        raise ImproperlyConfigured(f"{path} belongs to another user; set XDG_STATE_HOME to a directory of your own")
    return path
