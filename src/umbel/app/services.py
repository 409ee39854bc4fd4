"""What an app offers beside its tasks: sending by name, results, discovery, time, reports, the command line."""

from __future__ import annotations

import functools
import platform
import sys
import time
import warnings
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from importlib import import_module
from typing import Any

from umbel.app import calling, loading
from umbel.app import request as requests
from umbel.app.client import Client
from umbel.app.group_result import GroupsOfApp
from umbel.app.log import Logging
from umbel.app.result import AsyncResult, ResultSet
from umbel.app.signals import import_modules
from umbel.app.signature import Signature, maybe_signature, signature
from umbel.core.errors import AlwaysEagerIgnored, NotSupportedError
from umbel.core.urls import mask_url

__all__ = ["AppServices"]

_LATER = {
    "add_periodic_task": "umbel has no scheduler yet: let cron or a systemd timer run `umbel call`",
    "Worker": "start a worker with `umbel -A proj worker`",
    "WorkController": "start a worker with `umbel -A proj worker`",
    "Beat": "umbel has no scheduler yet",
    "events": "umbel has no events yet",
    "loader": "umbel has no loaders: use include=, imports and autodiscover_tasks",
    "clock": "umbel orders nothing by logical clocks",
    "steps": "umbel has no bootsteps: connect to the worker signals",
    "user_options": "umbel's commands take no further options yet",
    "pool": "umbel has no connection pools: see app.broker",
    "producer_pool": "umbel has no connection pools: see app.broker",
    "connection": "umbel has no transport connections: see app.broker",
    "broker_connection": "umbel has no transport connections: see app.broker",
    "connection_for_read": "umbel has no transport connections: see app.broker",
    "connection_for_write": "umbel has no transport connections: see app.broker",
    "connection_or_acquire": "umbel has no transport connections: see app.broker",
    "default_connection": "umbel has no transport connections: see app.broker",
    "producer_or_acquire": "umbel has no transport producers: see app.broker",
    "default_producer": "umbel has no transport producers: see app.broker",
    "setup_security": "signed messages are not supported yet",
    "subclass_with_self": "subclass the class and set its attribute app",
}


class AppServices:
    """The part of an app that is made of other parts."""

    conf: Any
    tasks: Any
    client: Client
    amqp: Any
    main: str | None
    ensure_finalized: Any

    def __getattr__(self, name: str) -> Any:
        do = _LATER.get(name)
        if do is not None:
            raise NotSupportedError(f"app.{name} is not supported: {do}")
        if hasattr(type(self), name):
            # A property failed with an AttributeError of its own: that is what the reader has to see.
            return object.__getattribute__(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- sending by name ---------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be registered here. If it is, its options are the defaults (Celery 5.7)."""
        if self.conf.task_always_eager:
            warnings.warn(
                "send_task sends although task_always_eager is on: only the name of the task is known",
                AlwaysEagerIgnored,
                stacklevel=2,
            )
        if args is not None and not isinstance(args, (list, tuple)):
            raise TypeError(f"args must be a list or tuple, not {type(args).__name__}")
        self.ensure_finalized()
        args, kwargs = args or (), kwargs or {}
        plan, own = self.client.plan(name, args, kwargs, options)
        result: AsyncResult[Any] = calling.result_of(self, self.client.send_call(plan, args, kwargs, own), plan, own)
        return result

    def send_many(
        self, name: str, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], **options: Any
    ) -> list[AsyncResult[Any]]:
        """Send one task for each (args, kwargs) by name, many to a transaction; return their results in order."""
        self.ensure_finalized()
        return calling.send_chunks(self, name, calls, options)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return a signature that this app sends."""
        made: Signature[Any] = signature(*args, **{**kwargs, "app": self})
        return made

    subtask = signature

    def maybe_signature(self, d: Any) -> Any:
        """Return a dict as a signature of this app."""
        return maybe_signature(d, app=self)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[Any]:  # noqa: N802 - Celery's public name
        """Return the result of a task by its id."""
        return AsyncResult(task_id, app=self, **kwargs)

    @property
    def GroupResult(self) -> GroupsOfApp:  # noqa: N802 - Celery's public name
        """Makes the result of a group from its id and its members; `GroupResult.restore(id)` finds a saved one."""
        return GroupsOfApp(self)

    def ResultSet(self, results: Iterable[Any] | None = None) -> ResultSet[Any]:  # noqa: N802 - the same
        """Return many results as one."""
        return ResultSet(results, self)

    @property
    def current_task(self) -> Any:
        """The task that runs here; None outside tasks."""
        return requests.current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task here that a message started."""
        return requests.current_worker_task()

    # --- modules -----------------------------------------------------------------------------------------------

    def autodiscover_tasks(self, packages: Any = None, related_name: str | None = "tasks", force: bool = False) -> None:
        """Import `related_name` of each package (list or function), when modules are imported or now (`force`)."""
        if packages is None:
            raise NotSupportedError(
                "autodiscover_tasks needs packages=: there is no framework support yet that knows them"
            )
        if force:
            loading.discover(packages, related_name)
            return
        receiver = functools.partial(_discover, packages, related_name)
        import_modules.connect(receiver, sender=self, weak=False)

    def import_default_modules(self) -> None:
        """Import what `include`, `imports` and autodiscovery name: what workers do at start."""
        loading.import_default_modules(self)

    # --- time --------------------------------------------------------------------------------------------------

    @property
    def timezone(self) -> tzinfo:
        """The zone of the setting `timezone`; UTC, or the local zone with `enable_utc=False`, where it is unset."""
        value = self.conf.timezone
        if isinstance(value, tzinfo):
            return value
        if value:
            return UTC if value.upper() == "UTC" else zoneinfo.ZoneInfo(value)
        if self.conf.enable_utc:
            return UTC
        local = datetime.now().astimezone().tzinfo
        assert local is not None
        return local

    def now(self) -> datetime:
        """The time in the app's zone."""
        return datetime.fromtimestamp(time.time(), self.timezone)

    def uses_utc_timezone(self) -> bool:
        """Whether the app's zone is UTC."""
        return self.timezone is UTC

    @functools.cached_property
    def log(self) -> Logging:
        """Logging of this app (Celery: `app.log`): `setup`, `redirect_stdouts`, `get_default_logger`."""
        return Logging(self)

    # --- programs ----------------------------------------------------------------------------------------------

    def start(self, argv: Sequence[str] | None = None) -> Any:
        """Run the command line for this app; return its exit status."""
        run = import_module("umbel.cli.main").main
        return run(list(sys.argv[1:] if argv is None else argv), obj=self)

    def worker_main(self, argv: Sequence[str] | None = None) -> Any:
        """Run `umbel worker` for this app; `argv` must contain the word `worker`."""
        given = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in given:
            raise ValueError("worker_main needs the word 'worker' among its arguments, as in ['worker', '-l', 'INFO']")
        return self.start(given)

    def bugreport(self) -> str:
        """Return versions and settings (without secrets), for reports of errors."""
        return "\n".join(
            (
                f"python {platform.python_version()} on {platform.platform()}",
                f"broker {mask_url(str(self.conf.broker_url))}",
                self.conf.humanize(with_defaults=False),
            )
        )

    def select_queues(self, queues: Any = None) -> None:
        """Consume from these queues only."""
        self.amqp.queues.select(queues)


def _discover(packages: Any, related_name: str | None, **_: Any) -> None:
    loading.discover(packages, related_name)
