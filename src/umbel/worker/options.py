"""What one worker was asked to be: command line over settings, resolved once and then frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Resolved options of a worker. Durations are seconds, memory is KiB."""

    #: Node name, `umbel@host` by default.
    hostname: str
    concurrency: int
    #: prefork, threads, asyncio or solo.
    pool: str = "prefork"
    #: Names of the queues to consume, in the order of the configuration.
    queues: tuple[str, ...] = ("celery",)
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    #: How many messages an executor may hold, the running one included; None: by how long tasks take. 1 means that
    #: nothing is ever leased that cannot start at once.
    prefetch_multiplier: int | None = None
    lease: float = 30.0
    heartbeat: float = 10.0
    max_crashes: int = 3
    #: How long TERM waits for running tasks; None means as long as they take.
    grace: float | None = None
    #: How long QUIT waits before it kills (Celery: worker_soft_shutdown_timeout).
    soft_shutdown: float = 0.0
    #: How long a task that nobody here knows is offered to other workers before it is a dead letter.
    unknown_task_wait: float = 60.0
    #: How many `async def` tasks one executor runs at once.
    async_concurrency: int = 100
    proc_alive_timeout: float = 4.0
    remote_control: bool = True
    disable_rate_limits: bool = False
