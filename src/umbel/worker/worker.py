"""The worker program: options resolved from arguments and settings, then a supervisor that runs until told to stop."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from umbel.app import signals
from umbel.app.flow_queue import flow_queue_name
from umbel.app.log import set_process_name
from umbel.app.purging import purge
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.worker.first_contact import reach
from umbel.worker.options import WorkerOptions

logger = logging.getLogger("umbel.worker")

#: Pool name → name it is known by here.
POOLS = {
    "prefork": "prefork",
    "processes": "prefork",
    "threads": "threads",
    "asyncio": "asyncio",
    "solo": "solo",
}
_GREEN = "umbel has no {pool} pool; `-P asyncio` runs many `async def` tasks at once, `-P threads` plain ones"


class Worker:
    """One worker of an app. Celery: `app.Worker(...)`, `celery.worker.WorkController`.

    Every argument that is None comes from the settings. `start` blocks and returns the exit status.
    """

    def __init__(
        self,
        app: Any,
        *,
        hostname: str | None = None,
        pool: str | None = None,
        concurrency: int | str | None = None,
        queues: Iterable[str] | str | None = None,
        exclude_queues: Iterable[str] | str | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        prefetch_multiplier: int | None = None,
        purge: bool = False,
        on_ready: Callable[[Worker], None] | None = None,
        on_stopping: Callable[[Worker, int, str], None] | None = None,
    ) -> None:
        self.app = app
        self._purge = purge
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self.hostname = hostname or f"umbel@{platform.node()}"
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=app.conf, options={})
        app.finalize()
        conf = app.conf
        self.options = WorkerOptions(
            hostname=self.hostname,
            concurrency=concurrency_of(concurrency if concurrency is not None else conf.worker_concurrency),
            pool=pool_of(pool or conf.worker_pool),
            queues=queues_of(app, _names(queues), _names(exclude_queues)),
            time_limit=_or(time_limit, conf.task_time_limit),
            soft_time_limit=_or(soft_time_limit, conf.task_soft_time_limit),
            max_tasks_per_child=_or(max_tasks_per_child, conf.worker_max_tasks_per_child),
            max_memory_per_child=_or(max_memory_per_child, conf.worker_max_memory_per_child),
            prefetch_multiplier=prefetch_of(conf, prefetch_multiplier),
            lease=conf.worker_lease,
            heartbeat=conf.worker_heartbeat,
            max_crashes=conf.worker_max_crashes,
            grace=conf.worker_shutdown_grace,
            soft_shutdown=conf.worker_soft_shutdown_timeout,
            unknown_task_wait=conf.worker_unknown_task_wait,
            proc_alive_timeout=conf.worker_proc_alive_timeout,
            remote_control=conf.worker_enable_remote_control,
            disable_rate_limits=conf.worker_disable_rate_limits,
        )
        check_limits(self.options)

    def start(self) -> int:
        """Run until a signal or an order ends the worker; return the exit status."""
        # Imported here because these modules need signals that Windows does not have.
        from umbel.worker.children import Launcher, spawned_role
        from umbel.worker.supervisor import Supervisor

        self.app.import_default_modules()
        self.app.finalize()
        role = spawned_role()
        if role is not None:
            Launcher(self.app, self.options, set_process_name).take_role(role)
        reach(self.app, self.options)
        if self._purge:
            count = purge(self.app, self.options.queues)
            logger.warning("Purged %d messages from %s", count, ", ".join(self.options.queues))
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)
        signals.worker_init.send(sender=self)
        set_process_name("supervisor")
        launcher = Launcher(self.app, self.options, set_process_name, spawns=self._must_spawn())
        supervisor = Supervisor(self.options, launcher, on_ready=self._ready, on_stopping=self._stopping)
        try:
            return supervisor.run()
        finally:
            signals.worker_shutdown.send(sender=self)

    def _must_spawn(self) -> bool:
        """Tell whether processes are started afresh: asked for, or made necessary by threads of the app."""
        from umbel.worker.children import thread_count

        if self.app.conf.worker_pool_start_method == "spawn":
            return True
        threads = thread_count()
        if threads > 1:
            logger.warning(
                "The app's modules have started %d threads. A fork could inherit a lock that one of them holds and "
                "hang, so the worker's processes are started afresh instead, which takes longer and shares no memory. "
                "Start such threads in a handler of worker_process_init.",
                threads - 1,
            )
        return threads > 1

    def _ready(self) -> None:
        if self._on_ready is not None:
            self._on_ready(self)
        signals.worker_ready.send(sender=self)

    def _stopping(self, signum: int, how: str) -> None:
        if self._on_stopping is not None:
            self._on_stopping(self, signum, how)
        signals.worker_shutting_down.send(
            sender=self.hostname, sig=signal.Signals(signum).name, how=how, exitcode=0 if how == "Warm" else 1
        )


WorkController = Worker


def pool_of(name: str) -> str:
    """Return the pool's name here, or raise with what to use instead."""
    if name in POOLS:
        if not hasattr(os, "fork"):
            # The supervisor forks the consumer, whatever the pool.
            raise NotSupportedError(
                f"a worker needs fork and POSIX signals, which {sys.platform} does not have: run it on Linux, macOS or "
                "BSD, or in WSL or a container. Tasks can be sent and results read on any system"
            )
        return POOLS[name]
    if name in ("gevent", "eventlet"):
        raise NotSupportedError(_GREEN.format(pool=name))
    raise ImproperlyConfigured(f"worker pool {name!r} is not known; choose one of {', '.join(sorted(set(POOLS)))}")


def prefetch_of(conf: Any, given: int | None) -> int | None:
    """Return how many messages an executor may hold; None where nobody has said (or said 0): umbel decides then."""
    if conf.worker_disable_prefetch:
        return 1
    if given is None and conf.value_set_for("worker_prefetch_multiplier"):
        given = conf.worker_prefetch_multiplier
    return given or None


def concurrency_of(value: int | str | None) -> int:
    """Return how many executors to run: None one per processor, `auto` as many as this process may use."""
    if value is None:
        return os.cpu_count() or 1
    if value == "auto":
        return usable_processors()
    try:
        count = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"concurrency {value!r} is neither a number nor 'auto'") from None
    if count < 1:
        raise ImproperlyConfigured(f"concurrency must be at least 1, not {count}")
    return count


def usable_processors() -> int:
    """Return how many processors this process may use: its affinity, and its container's quota (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    if quota == "max":
        return count
    return max(1, min(count, int(quota) // int(period)))


def queues_of(app: Any, select: Sequence[str] | None, exclude: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the queues to consume."""
    queues = app.amqp.queues
    if select:
        queues.select(list(select))
    if exclude:
        queues.deselect(list(exclude))
    names = tuple(name for name in queues.consume_from if select or name != flow_queue_name(app))
    if not names:
        raise ImproperlyConfigured("no queue is left to consume: -X excludes every queue that is configured")
    return names


def check_limits(options: WorkerOptions) -> None:
    """Raise ImproperlyConfigured for options that contradict each other or that the pool cannot keep."""
    if options.heartbeat * 2 > options.lease:
        raise ImproperlyConfigured(
            f"worker_heartbeat ({options.heartbeat:g} s) must be at most half of worker_lease ({options.lease:g} s)"
        )
    if options.time_limit and options.soft_time_limit and options.soft_time_limit > options.time_limit:
        raise ImproperlyConfigured(
            f"soft_time_limit ({options.soft_time_limit:g} s) must not be longer than time_limit "
            f"({options.time_limit:g} s)"
        )
    for name in ("max_tasks_per_child", "max_memory_per_child"):
        if getattr(options, name) and options.pool != "prefork":
            raise ImproperlyConfigured(f"{name} replaces executor processes; pool {options.pool} has none: use prefork")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _names(value: Iterable[str] | str | None) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    return [name.strip() for name in value if name.strip()]
