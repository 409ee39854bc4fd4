"""The app: settings, tasks and the engines that they are sent through (Celery: `celery.Celery`)."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, overload

from umbel.app import current
from umbel.app.amqp import Amqp
from umbel.app.builtin_tasks import add_builtin_tasks
from umbel.app.client import Client
from umbel.app.conf import Settings
from umbel.app.control import Control
from umbel.app.engines import AppEngines, Asker
from umbel.app.registry import TaskRegistry, gen_task_name
from umbel.app.services import AppServices
from umbel.app.shared import shared_tasks
from umbel.app.signals import Signal
from umbel.app.task import CoroutineTask, Task
from umbel.app.task_making import TaskMaker
from umbel.core.errors import NotSupportedError

__all__ = ["Celery", "Umbel"]

P = ParamSpec("P")
R = TypeVar("R")

#: Constructor arguments that replace Celery's own parts.
_REFUSED = {
    "amqp": "queues and routes are settings: task_queues, task_routes",
    "events": "umbel has no events yet",
    "log": "configure logging with the signals setup_logging and after_setup_logger",
    "control": "subclass is not supported; use app.control",
    "loader": "umbel has no loaders: use include=, imports and autodiscover_tasks",
    "fixups": "umbel has no fixups yet",
}


class Umbel(TaskMaker, AppServices, AppEngines):
    """An application: `app = Umbel("proj", broker="sqlite:///tasks.db")`. `Celery` is another name of it.

    `main` takes the place of `__main__` in task names. `broker` and `backend` are URLs; without them the SQLite file
    `umbel.db` in the working directory is both. Any setting can be given by name. `strict_typing=False` turns the
    check of arguments at the call off.
    """

    main: str | None = None
    task_cls: Any = Task
    registry_cls: Any = TaskRegistry

    def __init__(
        self,
        main: str | None = None,
        *,
        backend: str | None = None,
        broker: str | None = None,
        include: Any = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **settings: Any,
    ) -> None:
        for name, do in _REFUSED.items():
            if settings.pop(name, None) is not None:
                raise NotSupportedError(f"the argument {name}= is not supported: {do}")
        self.main = main or self.main
        self.namespace = namespace
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.set_as_current = set_as_current
        self.finalized = False
        self.task_cls = task_cls or self.task_cls
        self.on_configure = getattr(self, "on_configure", None) or Signal("on_configure")
        self.on_after_configure = Signal("on_after_configure")
        self.on_after_finalize = Signal("on_after_finalize")
        self.on_after_fork = Signal("on_after_fork")
        self._lock = threading.RLock()
        self._tasks: TaskRegistry = self._registry(tasks)
        self._Task: Any = None
        self._oid: str | None = None
        self._local = threading.local()
        given = {"broker_url": broker, "result_backend": backend, "include": include, **settings}
        merged = {**(changes or {}), **{name: value for name, value in given.items() if value is not None}}
        self._conf = Settings(merged, before_load=self._configure, after_load=self._configured)
        if config_source is not None:
            self._conf.from_object(config_source, silent=config_source_silent, namespace=namespace)
        self.amqp = Amqp(self)
        self.client = Client(self)
        self.control = Control(self)
        current.apps.alive.add(self)
        if set_as_current:
            current.set_current(self)
        self.on_init()

    def on_init(self) -> None:
        """Hook for subclasses: the app has been made."""

    def _registry(self, tasks: Any) -> TaskRegistry:
        if isinstance(tasks, type):
            tasks = tasks()
        if isinstance(tasks, TaskRegistry):
            return tasks
        registry: TaskRegistry = self.registry_cls(tasks or {})
        return registry

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.main, self._conf.changes, self.oid)

    # --- settings ----------------------------------------------------------------------------------------------

    @property
    def conf(self) -> Settings:
        """The settings, by attribute or item; the source of configuration is read at the first look."""
        return self._conf

    @conf.setter
    def conf(self, values: Mapping[str, Any]) -> None:
        self._conf.update(values)

    @property
    def configured(self) -> bool:
        """Whether the source of configuration has been read."""
        return bool(self._conf.__dict__["_loaded"])

    def _configure(self) -> None:
        if isinstance(self.on_configure, Signal):
            self.on_configure.send(sender=self)
        else:
            self.on_configure()

    def _configured(self, conf: Settings) -> None:
        self.prepare_config(conf)
        self.on_after_configure.send(sender=self, source=conf)

    def prepare_config(self, c: Any) -> Any:
        """Hook for subclasses: the settings have been read; returns them."""
        return c

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings of an object, a dict or a module by name (Celery: the same)."""
        self._conf.from_object(obj, silent=silent, force=force, namespace=namespace or self.namespace)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Take the settings of the module that an environment variable names."""
        return self._conf.from_envvar(variable_name, silent=silent, force=force)

    def config_from_cmdline(self, argv: list[str], namespace: str = "celery") -> None:
        """Take settings from arguments `key=value`."""
        self._conf.from_cmdline(argv, namespace)

    def add_defaults(self, fun: Any) -> None:
        """Add settings of the lowest rank: a dict, or a function that returns one when it is needed."""
        self._conf.add_defaults(fun)

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first of `defaults` that is not None, else the setting."""
        return next((value for value in defaults if value is not None), self._conf[default_key])

    # --- tasks -------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> TaskRegistry:
        """The tasks by name; the first look finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    def ensure_finalized(self) -> None:
        """Finalize the app if that is still to do and may be done by itself (`autofinalize`)."""
        if not self.finalized:
            self.finalize(auto=True)

    def finalize(self, auto: bool = False) -> None:
        """Take in shared tasks and apply annotations; happens by itself when tasks are first needed."""
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized (autofinalize=False: call app.finalize() first)")
            self.finalized = True
            shared_tasks.fill(self)
            for task in list(self._tasks.values()):
                self._settle(task)
            add_builtin_tasks(self, self._tasks)
            self.on_after_finalize.send(sender=self)

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(self, *, bind: Literal[False] = ..., **options: Any) -> _Decorator: ...

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a function a task: `@app.task` or `@app.task(bind=True, max_retries=5, …)`.

        `name`, `base` (task class), `bind` (the task itself becomes the first argument), `shared`, `filter` (called
        with the task), `pydantic` and the like are for the decorator; every other option is an attribute of the task.
        """
        if args:
            if len(args) > 1 or not callable(args[0]) or options:
                raise TypeError("app.task takes one function, or options by name")
            return self._decorate(args[0], {})
        return lambda function: self._decorate(function, options)

    def gen_task_name(self, name: str, module: str) -> str:
        """Return the name of a task without one; override it to name tasks differently."""
        return gen_task_name(self, name, module)

    # --- who it is ---------------------------------------------------------------------------------------------

    @property
    def oid(self) -> str:
        """A stable id of this app in this process."""
        if self._oid is None:
            self._oid = str(uuid.uuid4())
        return self._oid

    @property
    def thread_oid(self) -> str:
        """The same for this thread: the `reply_to` of its messages.

        With `rpc://` it is the process' queue of results, which all its threads share.
        """
        try:
            asker: Asker | None = self._local.asker
        except AttributeError:
            asker = None
        # A process that was forked asks for itself.
        if asker is None or asker.pid != os.getpid() or asker.closings != self._closings or asker.until < monotonic():
            asker = self._local.asker = self._new_asker()
        return asker.name

    def set_current(self) -> None:
        """Make it the current app of this thread."""
        current.set_current(self)

    def set_default(self) -> None:
        """Make it the app of all threads that have none of their own."""
        current.set_default(self)


class _Decorator:
    """How type checkers see `app.task(...)` without `bind`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...

    def __call__(self, function: Any, /) -> Any:
        return function


Celery = Umbel


def _restored(cls: type[Umbel], main: str | None, changes: dict[str, Any], oid: str) -> Umbel:
    """Return the app of a pickle: the same one in its own process, else one with the same changes."""
    for app in current.apps.alive:
        if app._oid == oid:
            return app
    return cls(main, changes=changes, set_as_current=False)


def _default_app() -> Umbel:
    return Umbel("default", set_as_current=False)


current.apps.make = _default_app
