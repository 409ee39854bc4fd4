"""The systems that are compared: what to install, how to start a worker, where the messages are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

APPS = Path(__file__).resolve().parent / "apps"
EXECUTORS = "2"


@dataclass(frozen=True)
class System:
    """One system under measurement; `{python}` in `worker` becomes its interpreter."""

    name: str
    title: str
    app: str
    requires: tuple[str, ...]
    worker: tuple[str, ...]
    on_redis: bool = False
    scenarios: frozenset[str] = frozenset({"enqueue", "drain", "results", "latency", "footprint"})
    query: str = ""


_UMBEL_WORKER = (
    "{python}", "-m", "umbel", "-A", "umbel_app", "worker", "--concurrency", EXECUTORS, "--loglevel", "warning",
)  # fmt: skip


def _counted(part: str) -> str:
    return "umbel_counted" if part == "umbel_app" else part


UMBEL = System(
    "umbel",
    "umbel on SQLite",
    "umbel_app",
    (),
    _UMBEL_WORKER,
    scenarios=frozenset({"enqueue", "bulk", "drain", "results", "latency", "footprint", "delayed", "calls"}),
)

#: For bench/micro.py: the same with its Python calls counted.
UMBEL_COUNTED = replace(UMBEL, app="umbel_counted", worker=tuple(map(_counted, _UMBEL_WORKER)))

UMBEL_FULL = System(
    "umbel-full",
    "umbel on SQLite, synchronous=full",
    "umbel_app",
    (),
    _UMBEL_WORKER,
    scenarios=frozenset({"enqueue", "drain", "results"}),
    query="?synchronous=full",
)

HUEY = System(
    "huey",
    "huey on SQLite",
    "huey_app",
    ("huey==3.5.4",),
    (
        "{python}", "-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", EXECUTORS, "-k", "process",
        "-d", "0.001", "-m", "0.01", "-q",
    ),
)  # fmt: skip

CELERY = System(
    "celery",
    "Celery 5.7 on Redis",
    "celery_app",
    ("celery[redis]==5.7.0", "kombu[redis]==5.7.0", "redis==8.1.0", "hiredis==3.5.0"),
    (
        "{python}", "-m", "celery", "-A", "celery_app", "worker", "-P", "prefork", "-c", EXECUTORS,
        "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning",
    ),
    on_redis=True,
)  # fmt: skip

SYSTEMS = {system.name: system for system in (UMBEL, UMBEL_FULL, HUEY, CELERY)}
