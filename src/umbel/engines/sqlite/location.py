"""Which file a `sqlite://` URL means, and with which options it is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from umbel.core.errors import ImproperlyConfigured, OperationalError, StorageFull

#: Name → meaning. The same names are taken from the URL's query and from the transport options.
OPTIONS: dict[str, str] = {
    "synchronous": "normal (default): every commit survives the death of a process; full: a power cut as well",
    "busy_timeout": "seconds that a call waits for other writers before it raises EngineBusy (default 10)",
    "cache_size": "KiB of pages that each connection keeps in memory (default 8192)",
}

_SYNCHRONOUS = ("normal", "full")


@dataclass(frozen=True)
class Location:
    """One SQLite file and how to open it. `busy_timeout` is in seconds, `cache_size` in KiB."""

    file: str
    synchronous: str = "normal"
    busy_timeout: float = 10.0
    cache_size: int = 8192

    @property
    def pragmas(self) -> tuple[tuple[str, str | int], ...]:
        """What every connection is told when it is opened."""
        return (
            ("synchronous", self.synchronous.upper()),
            ("cache_size", -self.cache_size),
            ("temp_store", "MEMORY"),
            ("journal_size_limit", 64 << 20),
        )

    @property
    def bells(self) -> str:
        """The directory of the doorbells."""
        return f"{self.file}-bells"

    def identity(self, suffix: str = "") -> tuple[int, int]:
        """Return device and inode of the file that the name (with `suffix`) leads to now; (0, 0) for none."""
        try:
            found = os.stat(self.file + suffix)  # noqa: PTH116 - half the price of Path.stat
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    def log_mark(self) -> bytes:
        """Return what the -wal file begins with, random numbers among it; empty where there is none."""
        try:
            with Path(f"{self.file}-wal").open("rb") as log:
                return log.read(32)
        except OSError:
            return b""

    def create_file(self) -> None:
        """Make the file, readable by its owner alone, unless it exists (SQLite gives -wal and -shm its mode)."""
        try:
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except FileNotFoundError:
            folder = Path(self.file).parent
            raise OperationalError(
                f"cannot open {self.file}: the directory {folder} does not exist; create it or change the URL"
            ) from None
        except IsADirectoryError:
            raise OperationalError(f"cannot open {self.file}: it is a directory; the URL must name a file") from None
        except OSError as error:
            if Path(self.file).exists():
                return
            raise StorageFull(
                f"cannot create {self.file} ({error.strerror}): check the owner, mode and free space of its directory"
            ) from error


def locate(url: str, options: Mapping[str, Any]) -> Location:
    """Read `sqlite:///relative.db`, `sqlite:////absolute/path.db` with its query; `options` fill what it leaves open.

    Raises ImproperlyConfigured for a URL without a file or an option that does not exist or fit.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc:
        raise ImproperlyConfigured(
            f"{parts.scheme}://{parts.netloc}…: a SQLite URL has no host; write sqlite:///relative.db or "
            "sqlite:////absolute/path.db"
        )
    if not path or path == ":memory:":
        raise ImproperlyConfigured(
            "a SQLite URL must name a file (sqlite:///relative.db, sqlite:////absolute/path.db), since processes "
            "meet in it; for an engine inside one process use memory://"
        )
    if "\0" in path:
        raise ImproperlyConfigured("the path of a SQLite URL must not contain a NUL character")
    given = {**options, **dict(parse_qsl(parts.query, keep_blank_values=True))}
    for name in given:
        if name not in OPTIONS:
            near = get_close_matches(str(name), OPTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ImproperlyConfigured(
                f"the SQLite engine has no option {name!r}{hint} It knows {', '.join(sorted(OPTIONS))}"
            )
    return Location(
        file=str(Path(path).absolute()),
        synchronous=_choice(given.get("synchronous", "normal")),
        busy_timeout=_number("busy_timeout", given.get("busy_timeout", 10.0)),
        cache_size=int(_number("cache_size", given.get("cache_size", 8192))),
    )


def _choice(value: object) -> str:
    text = str(value).lower()
    if text not in _SYNCHRONOUS:
        raise ImproperlyConfigured(f"synchronous must be one of {', '.join(_SYNCHRONOUS)}, not {value!r}")
    return text


def _number(name: str, value: object) -> float:
    with contextlib.suppress(ValueError):
        number = float(str(value))
        if 0 <= number < float("inf"):
            return number
    raise ImproperlyConfigured(f"{name} must be a number that is not negative, not {value!r}")
