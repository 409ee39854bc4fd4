"""The systems that are compared: what to install, how to start a worker, where the messages are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

APPS = Path(__file__).resolve().parent / "apps"
EXECUTORS = "2"

#: What is measured of systems on SQLite, on Redis, on RabbitMQ.
_PLAIN = frozenset({"enqueue", "drain", "results", "latency", "footprint"})
_ON_REDIS = frozenset({"enqueue", "drain", "results", "latency", "countdown", "large"})
#: Workflows; of some systems only a part.
_CANVAS = frozenset({"chord", "chain", "group", "volume"})
_ON_RABBITMQ = frozenset({"enqueue", "drain", "latency"})

_DRIVERS = ("redis==8.1.0", "hiredis==3.5.0")


@dataclass(frozen=True)
class System:
    """One system under measurement; `{python}` in `worker` becomes its interpreter."""

    name: str
    title: str
    app: str
    requires: tuple[str, ...]
    worker: tuple[str, ...]
    #: The server that its messages are on: sqlite, redis or rabbitmq.
    server: str = "sqlite"
    scenarios: frozenset[str] = _PLAIN
    query: str = ""
    #: Systems that need the same packages share an environment of this name; "" is the system's own.
    place: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


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
    scenarios=_PLAIN | {"bulk", "delayed", "calls"},
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

_HUEY_WORKER = ("{python}", "-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", EXECUTORS, "-k", "process", "-q")

HUEY = System(
    "huey",
    "huey on SQLite",
    "huey_app",
    ("huey==3.5.4",),
    (*_HUEY_WORKER, "-d", "0.001", "-m", "0.01"),
)

CELERY = System(
    "celery",
    "Celery on Redis",
    "celery_app",
    ("celery[redis]==5.7.0", "kombu[redis]==5.7.0", *_DRIVERS),
    (
        "{python}", "-m", "celery", "-A", "celery_app", "worker", "-P", "prefork", "-c", EXECUTORS,
        "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning",
    ),
    server="redis",
    scenarios=_PLAIN | _ON_REDIS | (_CANVAS - {"group"}),
    place="celery",
)  # fmt: skip

CELERY_RABBITMQ = replace(
    CELERY,
    name="celery-rabbitmq",
    title="Celery on RabbitMQ, confirms on",
    server="rabbitmq",
    scenarios=_ON_RABBITMQ | {"threads"},
    variables={"BENCH_CONFIRMS": "1"},
)

UMBEL_REDIS = replace(
    UMBEL, name="umbel-redis", title="umbel on Redis", server="redis", scenarios=_ON_REDIS | _CANVAS | {"bulk", "bare"}
)

UMBEL_RABBITMQ = replace(
    UMBEL,
    name="umbel-rabbitmq",
    title="umbel on RabbitMQ",
    server="rabbitmq",
    scenarios=_ON_RABBITMQ | {"threads", "gather", "bulk", "bare"},
)

HUEY_REDIS = System(
    "huey-redis",
    "huey on Redis",
    "huey_app",
    ("huey==3.5.4", *_DRIVERS),
    _HUEY_WORKER,
    server="redis",
    scenarios=_ON_REDIS | {"chord", "chain"},
)

DRAMATIQ = System(
    "dramatiq",
    "dramatiq on Redis, 1 thread",
    "dramatiq_app",
    ("dramatiq[rabbitmq,redis]==2.2.1", *_DRIVERS),
    ("{python}", "-m", "dramatiq", "dramatiq_app", "--processes", EXECUTORS, "--threads", "1"),
    server="redis",
    scenarios=_ON_REDIS | {"chord", "chain"},
    place="dramatiq",
    variables={"dramatiq_queue_prefetch": "128"},
)

DRAMATIQ_RABBITMQ = replace(
    DRAMATIQ,
    name="dramatiq-rabbitmq",
    title="dramatiq on RabbitMQ",
    worker=("{python}", "-m", "dramatiq", "dramatiq_app", "--processes", EXECUTORS),
    server="rabbitmq",
    scenarios=_ON_RABBITMQ,
    variables={},
)

DRAMATIQ_1_RABBITMQ = replace(
    DRAMATIQ,
    name="dramatiq-1-rabbitmq",
    title="dramatiq on RabbitMQ, 1 thread",
    server="rabbitmq",
    scenarios=_ON_RABBITMQ,
)

SYSTEMS = {
    system.name: system
    for system in (
        *(UMBEL, UMBEL_FULL, HUEY),
        *(UMBEL_REDIS, CELERY, DRAMATIQ, HUEY_REDIS),
        *(UMBEL_RABBITMQ, CELERY_RABBITMQ, DRAMATIQ_RABBITMQ, DRAMATIQ_1_RABBITMQ),
    )
}
