"""Tasks that belong to every app: `shared_task`, and what `@app.task` lends to other apps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from umbel.app.current import Proxy, apps, get_current_app
from umbel.app.task import Task
from umbel.app.task_options import warn_misspelt

__all__ = ["SharedTasks", "share_function", "shared_task", "shared_tasks"]


class SharedTasks:
    """What every app registers when it is finalized."""

    def __init__(self) -> None:
        self._functions: list[Callable[[Any], Any]] = []
        #: Tasks of single apps; they go when their app goes.
        self._lent: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, make: Callable[[Any], Any]) -> None:
        """Register `make(app)` in every app there is and will be."""
        self._functions.append(make)
        for app in list(apps.alive):
            if app.finalized:
                make(app)

    def lend(self, task: Any) -> None:
        """Let apps that are finalized later have this task too (`shared=True`)."""
        self._lent.add(task)

    def fill(self, app: Any) -> None:
        """Give `app` what it does not define itself."""
        for make in list(self._functions):
            make(app)
        for task in list(self._lent):
            if task.app is not app and task.name not in app._tasks:
                app._adopt(task)


shared_tasks = SharedTasks()


def share_function(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Make a function a task of every app; return what resolves to that of the current app."""
    name = options.get("name")

    def make(app: Any) -> Any:
        task_name = name or app.gen_task_name(function.__name__, function.__module__)
        if task_name in app._tasks:
            return app._tasks[task_name]
        return app._make_task(function, **{**options, "name": task_name})

    def lookup() -> Any:
        app = get_current_app()
        return app.tasks[name or app.gen_task_name(function.__name__, function.__module__)]

    shared_tasks.add(make)
    return Proxy(lookup)


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task that belongs to no app in particular: `@shared_task` or `@shared_task(name=…)` (Celery: the same)."""
    if len(args) == 1 and callable(args[0]) and not options:
        return _share(args[0], {})
    if args:
        raise TypeError("shared_task takes one function, or options by name")
    return lambda function: _share(function, options)


def _share(function: Any, options: dict[str, Any]) -> Any:
    if hasattr(type(function), "apply_async") or type(function) is Proxy:
        raise TypeError("shared_task was given a task: decorate the function once only")
    base = options.get("base")
    warn_misspelt(function, base if isinstance(base, type) else Task, options, stacklevel=4)
    return share_function(function, options)
