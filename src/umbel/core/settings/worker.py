"""Settings about workers."""

from __future__ import annotations

from umbel.core.settings.rows import no_effect, unsupported, works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["LOG_FORMAT", "ROWS", "TASK_LOG_FORMAT"]

LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

_OWN_CLASS = "umbel's worker has no place for a class of your own; leave it as it is"
_DAEMON = "let the service manager do it, for example systemd with `User=`, `Group=` and `UMask=`"

_PROCESSES: tuple[Setting, ...] = (
    works(
        "worker_concurrency",
        "CELERYD_CONCURRENCY",
        Kind.CONCURRENCY,
        None,
        "How many executors (processes, threads or coroutines) run tasks. Unset: one per processor; "
        "`auto` counts those "
        "that the process may use.",
        minimum=1,
    ),
    works(
        "worker_pool",
        "CELERYD_POOL",
        Kind.TEXT,
        "prefork",
        "Where tasks run: prefork, threads, asyncio or solo.",
    ),
    works(
        "worker_max_tasks_per_child",
        "CELERYD_MAX_TASKS_PER_CHILD",
        Kind.INT,
        None,
        "After how many tasks an executor process is replaced.",
        minimum=1,
    ),
    works(
        "worker_max_memory_per_child",
        "CELERYD_MAX_MEMORY_PER_CHILD",
        Kind.INT,
        None,
        "Resident memory in KiB after which an executor process is replaced when its task is done.",
        minimum=1,
    ),
    works(
        "worker_proc_alive_timeout",
        "CELERYD_PROC_ALIVE_TIMEOUT",
        Kind.SECONDS,
        4.0,
        "Time within which a new executor process must report that it is ready.",
        minimum=0.001,
    ),
    works(
        "worker_pool_start_method",
        "CELERYD_POOL_START_METHOD",
        Kind.TEXT,
        "fork",
        "How executor processes are made: `fork` (quick, shares memory) or `spawn` (fresh interpreters that run the "
        "command line again). An app whose modules start threads is spawned in any case.",
        since="Celery 5.7",
        choices=("fork", "spawn"),
    ),
    no_effect(
        "worker_pool_putlocks",
        "CELERYD_POOL_PUTLOCKS",
        Kind.BOOL,
        True,
        "Hold tasks back while every process is busy.",
        why="an executor never gets more tasks than it has credits for",
    ),
    unsupported(
        "worker_pool_restarts",
        "CELERYD_POOL_RESTARTS",
        Kind.BOOL,
        False,
        "Allow the control command `pool_restart`.",
        do="restart the worker",
    ),
    no_effect(
        "worker_lost_wait",
        "CELERYD_WORKER_LOST_WAIT",
        Kind.SECONDS,
        10.0,
        "How long to wait for the result of a process that died.",
        why="what a process wrote before it died has been read when its death is seen",
    ),
    unsupported(
        "worker_autoscaler",
        "CELERYD_AUTOSCALER",
        Kind.TEXT,
        "celery.worker.autoscale:Autoscaler",
        "Class that changes the number of executors.",
        do="set `worker_concurrency`",
    ),
    unsupported("worker_agent", "CELERYD_AGENT", Kind.TEXT, None, "Class of the agent.", do=_OWN_CLASS),
    unsupported(
        "worker_consumer",
        "CELERYD_CONSUMER",
        Kind.TEXT,
        "celery.worker.consumer:Consumer",
        "Class of the consumer.",
        do=_OWN_CLASS,
    ),
    unsupported("worker_timer", "CELERYD_TIMER", Kind.TEXT, None, "Class of the timer.", do=_OWN_CLASS),
    no_effect(
        "worker_timer_precision",
        "CELERYD_TIMER_PRECISION",
        Kind.SECONDS,
        1.0,
        "Longest sleep of the timer.",
        why="umbel's worker sleeps exactly until the next thing is due",
    ),
)

_CONSUMING: tuple[Setting, ...] = (
    works(
        "worker_prefetch_multiplier",
        "CELERYD_PREFETCH_MULTIPLIER",
        Kind.INT,
        4,
        "How many messages an executor may hold, the running one included. Left alone (or 0), umbel decides by how "
        "long tasks take: one where they take 10 ms or more, up to 200 where they are very short. 1: nothing is "
        "leased that cannot start at once.",
        minimum=0,
    ),
    works(
        "worker_disable_prefetch",
        "CELERYD_DISABLE_PREFETCH",
        Kind.BOOL,
        False,
        "Take a message only when an executor is free for it.",
        since="Celery 5.6",
    ),
    works(
        "worker_disable_rate_limits",
        "CELERY_DISABLE_RATE_LIMITS",
        Kind.BOOL,
        False,
        "Pay no heed to the rate limits of tasks.",
    ),
    works(
        "worker_lease",
        "",
        Kind.SECONDS,
        30.0,
        "How long a message belongs to the worker that took it, unless the worker extends it: the time "
        "after which the tasks "
        "of a lost worker are given to others.",
        since="umbel 0.1",
        minimum=0.1,
    ),
    works(
        "worker_heartbeat",
        "",
        Kind.SECONDS,
        10.0,
        "How often a worker extends its leases and says that it is alive. Must be less than half of `worker_lease`.",
        since="umbel 0.1",
        minimum=0.01,
    ),
    works(
        "worker_max_crashes",
        "",
        Kind.INT,
        3,
        "A message whose process died so many times becomes a dead letter.",
        since="umbel 0.1",
        minimum=1,
    ),
    works(
        "worker_unknown_task_wait",
        "",
        Kind.SECONDS,
        60.0,
        "How long a task whose name a worker does not know is offered to other workers before it becomes "
        "a dead letter.",
        since="umbel 0.1",
        minimum=0,
    ),
    no_effect(
        "worker_eta_task_limit",
        "CELERYD_ETA_TASK_LIMIT",
        Kind.INT,
        None,
        "How many delayed tasks a worker may hold.",
        why="delayed tasks wait in the broker and never in a worker",
        since="Celery 5.6",
    ),
    no_effect(
        "worker_enable_prefetch_count_reduction",
        "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        Kind.BOOL,
        True,
        "Take fewer messages after the connection was lost.",
        why="messages are taken by free credits, which count running tasks after a lost connection too",
    ),
    no_effect(
        "worker_cancel_long_running_tasks_on_connection_loss",
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        Kind.BOOL,
        False,
        "Kill running tasks when the broker is lost.",
        why="a task whose lease has passed to another worker cannot store a result, so nothing needs to be killed",
    ),
    no_effect(
        "worker_deduplicate_successful_tasks",
        "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        Kind.BOOL,
        False,
        "Skip a message that is delivered again although its task succeeded.",
        why="the result and the end of the message are one transaction, so this cannot happen",
    ),
    no_effect(
        "worker_detect_quorum_queues",
        "CELERYD_DETECT_QUORUM_QUEUES",
        Kind.BOOL,
        True,
        "Look for quorum queues.",
        why="applies to RabbitMQ only",
        since="Celery 5.5",
    ),
    unsupported(
        "worker_direct",
        "CELERY_WORKER_DIRECT",
        Kind.BOOL,
        False,
        "Give each worker a queue of its own.",
        do="name a queue after the worker and start the worker with `-Q`",
    ),
    works(
        "worker_enable_remote_control",
        "CELERY_ENABLE_REMOTE_CONTROL",
        Kind.BOOL,
        True,
        "Obey control messages such as `revoke`.",
    ),
    unsupported(
        "worker_send_task_events",
        "CELERY_SEND_EVENTS CELERY_SEND_TASK_EVENTS",
        Kind.BOOL,
        False,
        "Send events about tasks.",
        do="umbel sends no events yet; connect to the task signals",
    ),
    no_effect(
        "worker_state_db",
        "CELERYD_STATE_DB",
        Kind.TEXT,
        None,
        "File that keeps the ids of revoked tasks.",
        why="revoked ids are kept by the engine, for all workers, and outlive every restart",
    ),
)

_STOPPING: tuple[Setting, ...] = (
    works(
        "worker_soft_shutdown_timeout",
        "CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        Kind.SECONDS,
        0.0,
        "How long tasks may go on running when a worker is told to stop at once (QUIT, or INT twice); 0 "
        "grants nothing.",
        since="Celery 5.5",
        minimum=0,
    ),
    no_effect(
        "worker_enable_soft_shutdown_on_idle",
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        Kind.BOOL,
        False,
        "Wait for `worker_soft_shutdown_timeout` also when no task runs.",
        why="delayed tasks never sit in a worker, so that an idle one has nothing to wait for",
        since="Celery 5.5",
    ),
    works(
        "worker_shutdown_grace",
        "",
        Kind.SECONDS,
        None,
        "How long running tasks may go on when a worker is told to stop (TERM); after it they are "
        "stopped and given back or "
        "ended as lost. Unset: until they are done, as in Celery.",
        since="umbel 0.1",
        minimum=0,
    ),
)

_LOGGING: tuple[Setting, ...] = (
    works("worker_log_json", "", Kind.BOOL, False, "Write log lines as JSON.", since="umbel 0.1"),
    works("worker_log_format", "CELERYD_LOG_FORMAT", Kind.TEXT, LOG_FORMAT, "Format of log lines."),
    works(
        "worker_log_datefmt",
        "CELERYD_LOG_DATEFMT",
        Kind.TEXT,
        None,
        "Format of times in log lines.",
        since="Celery 5.7",
    ),
    works(
        "worker_task_log_format",
        "CELERYD_TASK_LOG_FORMAT",
        Kind.TEXT,
        TASK_LOG_FORMAT,
        "Format of log lines of tasks.",
    ),
    works(
        "worker_task_log_datefmt",
        "CELERYD_TASK_LOG_DATEFMT",
        Kind.TEXT,
        None,
        "Format of times in log lines of tasks.",
        since="Celery 5.7",
    ),
    works(
        "worker_log_color",
        "CELERYD_LOG_COLOR",
        Kind.BOOL,
        None,
        "Colour log lines by level. Unset: on a terminal only.",
    ),
    works(
        "worker_hijack_root_logger",
        "CELERYD_HIJACK_ROOT_LOGGER",
        Kind.BOOL,
        True,
        "Replace the handlers of the root logger.",
    ),
    works(
        "worker_redirect_stdouts",
        "CELERY_REDIRECT_STDOUTS",
        Kind.BOOL,
        True,
        "Write what tasks print into the log.",
    ),
    works(
        "worker_redirect_stdouts_level",
        "CELERY_REDIRECT_STDOUTS_LEVEL",
        Kind.TEXT,
        "WARNING",
        "Level of log lines that tasks print.",
    ),
)

_FILES: tuple[Setting, ...] = (
    works("worker_logfile", "", Kind.TEXT, None, "Log file of `umbel worker`, where `--logfile` is not given."),
    works(
        "worker_pidfile",
        "",
        Kind.TEXT,
        None,
        "File for the process id of `umbel worker`, where `--pidfile` is not given.",
    ),
    unsupported("worker_uid", "", Kind.ANY, None, "User of the worker.", do=_DAEMON),
    unsupported("worker_gid", "", Kind.ANY, None, "Group of the worker.", do=_DAEMON),
    unsupported("worker_umask", "", Kind.ANY, None, "File mode mask of the worker.", do=_DAEMON),
    unsupported(
        "worker_executable",
        "",
        Kind.TEXT,
        None,
        "Python that runs the worker.",
        do="start the worker with that Python",
    ),
)

ROWS: tuple[Setting, ...] = _PROCESSES + _CONSUMING + _STOPPING + _LOGGING + _FILES
