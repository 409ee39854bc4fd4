"""How functions and classes become tasks of an app."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from umbel.app.loading import load_symbol
from umbel.app.models import validating
from umbel.app.shared import shared_tasks
from umbel.app.task_options import DECORATOR_ONLY, warn_misspelt
from umbel.app.typing_check import ArgumentCheck
from umbel.core.annotations import Annotations
from umbel.core.errors import DuplicateTaskNameWarning, NotSupportedError
from umbel.core.options import check_time_limits

__all__ = ["TaskMaker"]


class TaskMaker:
    """The part of an app that makes and registers tasks."""

    main: str | None
    conf: Any
    task_cls: Any
    strict_typing: bool
    finalized: bool
    _tasks: Any
    _Task: Any
    gen_task_name: Any

    @property
    def Task(self) -> Any:  # noqa: N802 - Celery's public name
        """The base class of this app's tasks, for subclasses."""
        if self._Task is None:
            self._Task = self.create_task_cls()
        return self._Task

    def create_task_cls(self) -> Any:
        """Make the base class of this app's tasks from `task_cls`."""
        base = load_symbol(self.task_cls)
        return type(base.__name__, (base,), {"app": self, "abstract": True, "__module__": base.__module__})

    @property
    def annotations(self) -> Annotations:
        """The prepared `task_annotations`."""
        return Annotations(self.conf.task_annotations, load_symbol)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task (class or object) and return the task; one of that name is replaced."""
        if isinstance(task, type):
            if not task.__dict__.get("app"):
                task.bind(self)  # type: ignore[attr-defined]
            task = task()
        for name, value in options.items():
            setattr(task, name, value)
        task.__dict__["app"] = self
        if not task.name:
            task.name = self.gen_task_name(type(task).__name__, type(task).__module__)
        _refuse_request_class(task)
        present = self._tasks.get(task.name)
        if present is not None and type(present).run is not type(task).run:
            _warn_duplicate(task.name, present, task)
        self._tasks[task.name] = task
        type(task).on_bound(self)
        if self.typing_of(task):
            task._check = ArgumentCheck(task.run, task.name)
        if self.finalized:
            self._settle(task)
        return task

    def typing_of(self, task: Any) -> bool:
        """Tell whether arguments of the task are checked at the call."""
        return bool(self.strict_typing if task.typing is None else task.typing)

    def _decorate(self, function: Any, options: dict[str, Any]) -> Any:
        if not callable(function):
            raise TypeError(f"app.task decorates a function, not {function!r}")
        if hasattr(type(function), "apply_async"):
            raise TypeError(f"{function!r} is a task already: decorate the function once only")
        warn_misspelt(function, load_symbol(options.get("base")) or self.Task, options, stacklevel=4)
        task = self._make_task(function, **options)
        if options.get("shared", True) and task.app is self:
            shared_tasks.lend(task)
        return task

    def _make_task(self, function: Callable[..., Any], **options: Any) -> Any:
        name = options.get("name") or self.gen_task_name(function.__name__, function.__module__)
        present = self._tasks.get(name)
        if present is not None:
            if getattr(present, "__wrapped__", None) is not function:
                _warn_duplicate(name, present, function)
            return present
        base = load_symbol(options.get("base")) or self.Task
        check_time_limits(options.get("time_limit"), options.get("soft_time_limit"))
        task = self._task_class(function, name, base, options)()
        _refuse_request_class(task)
        task.__dict__["app"] = self
        task.__dict__["_recipe"] = (function, options)
        self._tasks[name] = task
        type(task).on_bound(self)
        if self.typing_of(task):
            task._check = ArgumentCheck(task.run, name)
        if self.finalized:
            self._settle(task)
        chosen = options.get("filter")
        return chosen(task) if chosen is not None else task

    def _task_class(self, function: Any, name: str, base: Any, options: dict[str, Any]) -> Any:
        bind = bool(options.get("bind"))
        run = function
        if options.get("pydantic"):
            run = validating(
                function,
                self,
                name,
                strict=bool(options.get("pydantic_strict")),
                context=options.get("pydantic_context"),
                dump_kwargs=options.get("pydantic_dump_kwargs"),
            )
        attributes = {key: value for key, value in options.items() if key not in DECORATOR_ONLY}
        return type(
            function.__name__,
            (base,),
            {
                "app": self,
                "name": name,
                "run": run if bind else staticmethod(run),
                "_decorated": True,
                "__doc__": function.__doc__,
                "__module__": function.__module__,
                "__wrapped__": staticmethod(function),
                "__annotations__": getattr(function, "__annotations__", {}),
                **attributes,
            },
        )

    def _settle(self, task: Any) -> None:
        """Apply the annotations to a task of a finalized app."""
        if self.conf.task_annotations and not task.__dict__.get("_annotated"):
            task.__dict__["_annotated"] = True
            task.annotate()

    def _adopt(self, task: Any) -> None:
        """Make a task of another app one of this app too, under the same name."""
        recipe = task.__dict__.get("_recipe")
        if recipe is not None:
            function, options = recipe
            self._make_task(function, **{**options, "name": task.name, "base": None, "filter": None})


def _refuse_request_class(task: Any) -> None:
    if getattr(task, "Request", None) is not None:
        raise NotSupportedError(
            f"task {task.name}: request classes of one's own (Request) are not supported: override before_start, "
            "on_success, on_failure or on_retry of its class instead"
        )


def _warn_duplicate(name: str, present: Any, new: Any) -> None:
    warnings.warn(
        f"the task name {name!r} is taken by {_place(present)}; {_place(new)} needs another one (name=)",
        DuplicateTaskNameWarning,
        stacklevel=4,
    )


def _place(thing: Any) -> str:
    function = inspect.unwrap(getattr(thing, "__wrapped__", thing))
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(type(thing).__module__)
