"""Celery's module paths and the names that programs import from them: what umbel has and where, what it has not and
what to do instead. The modules beside this one are written from this table by `scripts/gen_import_points.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from umbel.core.errors import NotThereYet

__all__ = ["POINTS", "Point", "missing_names"]


class Point(NamedTuple):
    """One module path of Celery's, below `celery`; the empty path is `celery` itself."""

    #: Module of umbel → names that are re-exported, as `name` or `ours as theirs`.
    here: Mapping[str, str] = {}
    #: Names (separated by blanks) → what to do until umbel has them.
    later: Mapping[str, str] = {}
    #: What to do about every further name.
    rest: str = ""


CANVAS = "link single tasks with link= and link_error=, or send the next task from the task before it"
PERIODIC = "let a cron job or a systemd timer run `umbel call`"
EVENTS = "look with `umbel status` and `umbel inspect`, or connect to the signals of umbel.celery.signals"
COMMANDS = "run the command `umbel` in a process of its own"
BOOTSTEPS = "connect to the signals worker_init, worker_ready and worker_shutdown instead"
CONTROL = "the commands that workers know are methods of app.control and app.control.inspect()"
REQUESTS = "override the handlers before_start, on_success, on_failure and on_retry of a task class instead"
BACKENDS = "results are read with AsyncResult; where they are stored is the setting result_backend"
LOADERS = "use include=, the setting imports, app.autodiscover_tasks() and app.config_from_object()"
SIGNING = "keep accept_content at json and protect the broker itself"
POOLS = "choose one of the pools prefork, threads, asyncio and solo with `umbel worker --pool`"
DAEMONS = "let a service manager such as systemd start, stop and restart `umbel worker`"
DEBUGGER = "run the task in your own process with task.apply() and set a breakpoint there"
ABORT = "use result.revoke(terminate=True), or let the task read a flag of your own"
KOMBU = "umbel speaks to its brokers itself; name the broker in the setting broker_url"
TESTS = "start a worker on a SQLite file in a temporary folder, as in docs/guides/testing.md"
PLAIN = "take it from the standard library or write it in your own program"
DATES = "use datetime and zoneinfo of the standard library"
VERSIONS = "ask importlib.metadata.version('umbel')"

_ERRORS = (
    "AlreadyRegistered AlwaysEagerIgnored BackendError BackendGetMetaError BackendStoreError CDeprecationWarning "
    "CPendingDeprecationWarning CeleryError CeleryWarning ChordError DuplicateNodenameWarning DuplicateTaskNameWarning "
    "FixupWarning Ignore ImproperlyConfigured IncompleteStream InvalidTaskError MaxRetriesExceededError NotConfigured "
    "NotRegistered OperationalError QueueNotFound Reject Retry RetryTaskError SecurityError SecurityWarning "
    "SoftTimeLimitExceeded TaskError TaskPredicate TaskRevokedError Terminated TimeLimitExceeded TimeoutError "
    "WorkerLostError WorkerShutdown WorkerTerminate reraise"
)
_SIGNALS = (
    "after_setup_logger after_setup_task_logger after_task_publish beat_embedded_init beat_init before_task_publish "
    "celeryd_after_setup celeryd_init eventlet_pool_apply eventlet_pool_postshutdown eventlet_pool_preshutdown "
    "eventlet_pool_started heartbeat_sent import_modules setup_logging task_failure task_internal_error task_postrun "
    "task_prerun task_received task_rejected task_retry task_revoked task_sent task_success task_unknown "
    "user_preload_options worker_before_create_process worker_init worker_process_init worker_process_shutdown "
    "worker_ready worker_shutdown worker_shutting_down"
)
_STATES = (
    "ALL_STATES EXCEPTION_STATES FAILURE IGNORED NONE_PRECEDENCE PENDING PRECEDENCE PRECEDENCE_LOOKUP PROPAGATE_STATES "
    "READY_STATES RECEIVED REJECTED RETRY REVOKED STARTED SUCCESS UNREADY_STATES precedence state"
)
_NODENAMES = "default_nodename gethostname host_format node_format nodename nodesplit"

#: Modules of which umbel has nothing.
_EMPTY = {
    **dict.fromkeys(("backends.asynchronous", "backends.cache", "backends.filesystem", "backends.redis"), BACKENDS),
    **dict.fromkeys(("backends.database", "backends.mongodb", "backends.rpc"), BACKENDS),
    **dict.fromkeys(("concurrency.asynpool", "concurrency.prefork", "concurrency.solo", "concurrency.thread"), POOLS),
    **dict.fromkeys(("concurrency.eventlet", "concurrency.gevent"), POOLS),
    **dict.fromkeys(("events.cursesmon", "events.dispatcher", "events.dumper", "events.event"), EVENTS),
    **dict.fromkeys(("utils.abstract", "utils.annotations", "utils.deprecated", "utils.graph", "utils.static"), PLAIN),
    **dict.fromkeys(("utils.quorum_queues",), KOMBU),
    **dict.fromkeys(("worker.components", "worker.loops", "worker.consumer.connection"), BOOTSTEPS),
    **dict.fromkeys(("worker.consumer.consumer", "worker.consumer.control", "worker.consumer.tasks"), BOOTSTEPS),
    **dict.fromkeys(("worker.consumer.events", "worker.consumer.gossip", "worker.consumer.heart"), BOOTSTEPS),
    **dict.fromkeys(("worker.consumer.agent", "worker.consumer.delayed_delivery"), BOOTSTEPS),
    **dict.fromkeys(("worker.consumer.mingle", "worker.heartbeat"), BOOTSTEPS),
    "worker.pidbox": CONTROL,
}

POINTS: Mapping[str, Point] = {
    **{path: Point(rest=remedy) for path, remedy in _EMPTY.items()},
    "_state": Point(
        {
            "umbel.app.current": "current_app current_task get_current_app set_default as set_default_app",
            "umbel.app.request": "current_task as get_current_task; current_worker_task as get_current_worker_task",
        },
        {"connect_on_app_finalize": "connect to the app's signal on_after_finalize"},
    ),
    "": Point(
        {
            "umbel.app.app": "Celery",
            "umbel.app.current": "current_app current_task",
            "umbel.app.ids": "new_id as uuid",
            "umbel.app.shared": "shared_task",
            "umbel.app.canvas.names": (
                "Signature chain chord chunks group maybe_signature signature subtask xmap xstarmap"
            ),
            "umbel.app.task": "Task",
        },
        {
            "VERSION VERSION_BANNER SERIES version_info version_info_t": VERSIONS,
            "bugreport": "run `umbel report`",
            "maybe_patch_concurrency": POOLS,
        },
    ),
    "app": Point(
        {"umbel.app.app": "Celery", "umbel.app.current": "app_or_default", "umbel.app.shared": "shared_task"},
        {
            "default_app": "call app_or_default()",
            "bugreport": "run `umbel report`",
            "enable_trace disable_trace": "read umbel.celery.current_app instead",
            "push_current_task pop_current_task": "call task.push_request(...) and task.pop_request()",
            "AppPickler": "pickle the app itself",
        },
    ),
    "app.amqp": Point(
        {"umbel.app.amqp": "Amqp as AMQP", "umbel.core.queues": "Queues"},
        {"task_message": "send tasks with apply_async or send_task"},
    ),
    "app.annotations": Point(
        later={"MapAnnotation prepare resolve_all": "put the annotations in the setting task_annotations"}
    ),
    "app.autoretry": Point(
        later={"add_autoretry_behaviour": "give the task the options autoretry_for and retry_backoff"}
    ),
    "app.backends": Point(later={"by_name by_url": BACKENDS}),
    "app.base": Point({"umbel.app.app": "Celery; Celery as App"}),
    "app.builtins": Point(rest=CANVAS),
    "app.control": Point(
        {"umbel.app.control": "Control Inspect"}, {"flatten_reply": "the values of a reply's dict are the answers"}
    ),
    "app.defaults": Point(
        later={
            "DEFAULTS NAMESPACES Option flatten find": "read app.conf, or docs/reference/settings.md for all settings"
        }
    ),
    "app.events": Point(later={"Events": EVENTS}),
    "app.log": Point({"umbel.app.log": "Logging TaskFormatter"}),
    "app.registry": Point({"umbel.app.registry": "TaskRegistry"}),
    "app.routes": Point(
        {"umbel.core.routing": "Router"},
        {"MapRoute prepare expand_router_string": "put the routes in the setting task_routes"},
    ),
    "app.task": Point({"umbel.app.request": "Context", "umbel.app.task": "Task"}),
    "app.trace": Point(
        later={
            "TraceInfo build_tracer trace_task setup_worker_optimizations reset_worker_optimizations": REQUESTS,
        }
    ),
    "app.utils": Point(
        {"umbel.app.conf": "Settings", "umbel.app.find": "find_app", "umbel.core.urls": "mask_url as sanitize_url"},
        {"appstr filter_hidden_settings": "print app.conf.humanize()", "bugreport": "run `umbel report`"},
    ),
    "apps": Point(),
    "apps.beat": Point(later={"Beat": PERIODIC}),
    "apps.multi": Point(later={"Cluster Node MultiParser NamespacedOptionParser": DAEMONS}),
    "apps.worker": Point(later={"Worker": "start one with `umbel worker`, or app.worker_main(['worker'])"}),
    "backends": Point(rest=BACKENDS),
    "backends.base": Point(later={"BaseBackend KeyValueStoreBackend DisabledBackend": BACKENDS}, rest=BACKENDS),
    "beat": Point(
        later={
            "BeatLazyFunc BeatPidbox EmbeddedService PersistentScheduler ScheduleEntry": PERIODIC,
            "Scheduler SchedulingError Service": PERIODIC,
        }
    ),
    "bin": Point(rest=COMMANDS),
    "bin.base": Point(rest=COMMANDS),
    "bin.celery": Point(later={"main celery": COMMANDS}, rest=COMMANDS),
    "bin.worker": Point(later={"worker": COMMANDS}, rest=COMMANDS),
    "bootsteps": Point(later={"Blueprint ConsumerStep StartStopStep Step": BOOTSTEPS}),
    "canvas": Point(
        {
            "umbel.app.canvas.names": (
                "Signature StampingVisitor _chain _chord chain chord chunks group maybe_signature signature subtask "
                "xmap xstarmap"
            ),
        },
        {"abstract": "check with isinstance(value, Signature)"},
    ),
    "concurrency": Point(later={"get_available_pool_names get_implementation": POOLS}),
    "concurrency.base": Point(later={"BasePool apply_target": POOLS}),
    "contrib": Point(),
    "contrib.abortable": Point(later={"AbortableAsyncResult AbortableTask": ABORT}),
    "contrib.django": Point(),
    "contrib.django.task": Point(
        later={"DjangoTask": "call django.db.transaction.on_commit(lambda: task.delay(...))"},
    ),
    "contrib.migrate": Point(rest="let the workers of the old broker finish what waits there"),
    "contrib.pytest": Point(rest=TESTS),
    "contrib.rdb": Point(later={"Rdb debugger set_trace": DEBUGGER}),
    "contrib.sphinx": Point(rest="document the functions beneath the tasks with autodoc's autofunction"),
    "contrib.testing": Point(rest=TESTS),
    "contrib.testing.app": Point(later={"TestApp Trap UnitLogging set_trap setup_default_app": TESTS}),
    "contrib.testing.manager": Point(later={"Manager ManagerMixin Sentinel": TESTS}),
    "contrib.testing.mocks": Point(
        later={"ContextMock TaskMessage TaskMessage1 task_message_from_sig": TESTS},
    ),
    "contrib.testing.tasks": Point(later={"ping": "call app.control.ping()"}),
    "contrib.testing.worker": Point(later={"TestWorkController setup_app_for_worker start_worker": TESTS}),
    "events": Point(
        later={"Event EventDispatcher EventReceiver State event_exchange get_exchange group_from": EVENTS},
    ),
    "events.receiver": Point(later={"EventReceiver": EVENTS}),
    "events.snapshot": Point(later={"Polaroid evcam": EVENTS}),
    "events.state": Point(later={"State Task Worker heartbeat_expires": EVENTS}),
    "exceptions": Point(
        {"umbel.core.errors": _ERRORS},
        {"CeleryCommandException": "raise click.ClickException from a command of your own"},
    ),
    "fixups": Point(),
    "fixups.django": Point(later={"DjangoFixup fixup": LOADERS}),
    "loaders": Point(later={"get_loader_cls": LOADERS}),
    "loaders.app": Point(later={"AppLoader": LOADERS}),
    "loaders.base": Point(later={"BaseLoader": LOADERS}),
    "loaders.default": Point(later={"Loader DEFAULT_CONFIG_MODULE": LOADERS}),
    "local": Point(
        {"umbel.app.current": "Proxy"},
        {"PromiseProxy maybe_evaluate try_import": PLAIN},
    ),
    "platforms": Point(
        {"os": "EX_OK EX_UNAVAILABLE EX_USAGE EX_CANTCREAT"},
        {
            "EX_FAILURE": "write 1",
            "SYSTEM IS_macOS IS_WINDOWS SIGMAP pyimplementation": "ask the modules platform, sys and signal",
            "DaemonContext LockFailed Pidfile create_pidlock detached maybe_drop_privileges check_privileges": DAEMONS,
            "parse_uid parse_gid setgroups initgroups setgid setuid close_open_fds get_fdmax": DAEMONS,
            "signals signal_name set_process_title set_mp_process_title": "use the standard library's module signal",
            "fd_by_path get_errno_name ignore_errno isatty": PLAIN,
        },
    ),
    "result": Point(
        {
            "umbel.app.result": (
                "AsyncResult EagerResult GroupResult ResultSet allow_join_result assert_will_not_block "
                "denied_join_result result_from_tuple"
            )
        },
        {"ResultBase": "test for AsyncResult and ResultSet"},
    ),
    "schedules": Point(
        later={
            "BaseSchedule ParseException crontab crontab_parser maybe_schedule schedstate schedule solar": PERIODIC,
        }
    ),
    "security": Point(later={"setup_security": SIGNING, "disable_insecure_serializers": SIGNING}),
    "signals": Point({"umbel.app.signals": _SIGNALS}),
    "states": Point({"umbel.core.states": _STATES}),
    "task": Point({"umbel.app.task": "Task"}),
    "utils": Point(
        {
            "functools": "cached_property",
            "umbel.app.ids": "new_id as uuid; new_id as gen_unique_id",
            "umbel.app.loading": "load_symbol as get_cls_by_name",
            "umbel.app.nodenames": "nodename nodesplit",
            "umbel.app.registry": "gen_task_name",
        },
        {
            "LOG_LEVELS": "call logging.getLevelNamesMapping()",
            "chunks memoize noop get_full_cls_name instantiate import_from_cwd": PLAIN,
            "worker_direct": "name a queue for each worker yourself, in task_queues and with `umbel worker -Q`",
        },
    ),
    "utils.collections": Point(rest=PLAIN),
    "utils.debug": Point(rest=PLAIN),
    "utils.dispatch": Point({"umbel.app.signals": "Signal"}),
    "utils.dispatch.signal": Point({"umbel.app.signals": "Signal"}),
    "utils.functional": Point(
        later={
            "LRUCache chunks dictfilter first firstmethod fun_accepts_kwargs head_from_fun is_list lazy maybe": PLAIN,
            "maybe_evaluate maybe_list mattrgetter memoize mlazy noop padlist regen uniq": PLAIN,
        }
    ),
    "utils.imports": Point(
        {"umbel.app.loading": "load_symbol as symbol_by_name", "umbel.app.registry": "gen_task_name"},
        {"NotAPackage find_module import_from_cwd instantiate qualname reload_from_cwd cwd_in_path module_file": PLAIN},
    ),
    "utils.iso8601": Point(later={"parse_iso8601": "call datetime.datetime.fromisoformat"}),
    "utils.log": Point(
        {
            "umbel.app.log": (
                "ColorFormatter LoggingProxy base_logger get_logger get_task_logger mlevel task_logger worker_logger"
            )
        },
        {
            "LOG_LEVELS": "call logging.getLevelNamesMapping()",
            "get_multiprocessing_logger reset_multiprocessing_logger": "umbel's processes log as every module does",
            "in_sighandler set_in_sighandler": "umbel logs nothing from signal handlers",
        },
    ),
    "utils.nodenames": Point(
        {"umbel.app.nodenames": _NODENAMES},
        {
            "anon_nodename": "call nodename(name, gethostname())",
            "worker_direct": "name a queue for each worker yourself, in task_queues and with `umbel worker -Q`",
        },
    ),
    "utils.objects": Point(later={"Bunch": "use types.SimpleNamespace"}, rest=PLAIN),
    "utils.saferepr": Point({"umbel.core.safe_repr": "safe_repr as saferepr"}, {"reprstream": "call saferepr"}),
    "utils.serialization": Point(
        {"umbel.app.exceptions_io": "register_exception"},
        {
            "UnpickleableExceptionWrapper": "exceptions travel as text; catch umbel.core.errors.RemoteError",
            "create_exception_cls find_pickleable_exception get_pickleable_etype": "exceptions travel as text",
            "get_pickleable_exception get_pickled_exception subclass_exception": "exceptions travel as text",
            "strtobool": PLAIN,
        },
    ),
    "utils.sysinfo": Point(later={"load_average": "call os.getloadavg()"}, rest=PLAIN),
    "utils.term": Point(later={"colored": "use click.style"}),
    "utils.text": Point(rest="use the standard library's module textwrap"),
    "utils.threads": Point(rest="use the standard library's module threading"),
    "utils.time": Point(
        later={
            "LocalTimezone timezone make_aware maybe_make_aware to_utc localize is_naive utcoffset": DATES,
            "ffwd weekday remaining delta_resolution maybe_timedelta maybe_iso8601 adjust_timestamp": DATES,
            "add_seconds_to_datetime subtract_datetimes humanize_seconds": DATES,
            "rate": "write the number of tasks a second yourself",
            "get_exponential_backoff_interval": "give the task the option retry_backoff",
        }
    ),
    "utils.timer2": Point(rest=PLAIN),
    "worker": Point(later={"WorkController": "start one with `umbel worker`, or app.worker_main(['worker'])"}),
    "worker.autoscale": Point(later={"Autoscaler WorkerComponent": "set a fixed number with `umbel worker -c`"}),
    "worker.consumer": Point(later={"Consumer": BOOTSTEPS}, rest=BOOTSTEPS),
    "worker.control": Point(later={"Panel control_command inspect_command": CONTROL}),
    "worker.request": Point(later={"Request": REQUESTS}),
    "worker.state": Point(rest="ask app.control.inspect().active(), .reserved() or .stats()"),
    "worker.strategy": Point(later={"default": REQUESTS}),
    "worker.worker": Point(later={"WorkController": "start one with `umbel worker`, or app.worker_main(['worker'])"}),
}


def missing_names(path: str) -> Callable[[str], Any]:
    """Return the module-level `__getattr__` of one import point: names that are not there yet raise NotThereYet."""
    point = POINTS[path]
    remedies = {name: remedy for names, remedy in point.later.items() for name in names.split()}
    theirs = ".".join(filter(None, ("celery", path)))

    def missing(name: str) -> Any:
        remedy = remedies.get(name) or ("" if name.startswith("_") else point.rest)
        if remedy:
            raise NotThereYet(f"umbel has no {theirs}.{name} yet: {remedy}")
        raise AttributeError(f"module 'umbel.{theirs}' has no attribute {name!r}")

    return missing
