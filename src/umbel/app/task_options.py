"""Task attributes whose default comes from a setting, and the app that a task belongs to."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from umbel.app.current import get_current_app
from umbel.core.errors import UmbelWarning

__all__ = ["DECORATOR_ONLY", "FROM_CONFIG", "AppOf", "from_config", "own_option", "warn_misspelt"]

#: Options of the decorators that become no attributes of the task.
DECORATOR_ONLY = (
    "base", "bind", "shared", "filter", "lazy", "name", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs",
)  # fmt: skip
#: How alike (0 to 1) a name must be to an option's to be taken for a slip: `ack_late` is, `queue_size` is not.
_MISSPELT = 0.85

#: Celery's `Task.from_config`: which setting an attribute takes its default from.
FROM_CONFIG: tuple[tuple[str, str], ...] = (
    ("serializer", "task_serializer"),
    ("compression", "task_compression"),
    ("rate_limit", "task_default_rate_limit"),
    ("priority", "task_default_priority"),
    ("track_started", "task_track_started"),
    ("acks_late", "task_acks_late"),
    ("reject_on_worker_lost", "task_reject_on_worker_lost"),
    ("retry_on_worker_lost", "task_retry_on_worker_lost"),
    ("ignore_result", "task_ignore_result"),
    ("store_eager_result", "task_store_eager_result"),
    ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
)


class _FromConfig:
    """Reads a setting whenever the task does not say itself; on the class it is None, as in Celery."""

    def __init__(self, setting: str) -> None:
        self._setting = setting

    def __get__(self, task: Any, owner: Any = None) -> Any:
        return None if task is None else task.app.conf[self._setting]


def from_config(setting: str) -> Any:
    """Return the attribute that stands for a setting until a task has a value of its own."""
    return _FromConfig(setting)


class AppOf:
    """The app of a task that is bound to none yet: the current one."""

    def __get__(self, task: Any, owner: Any = None) -> Any:
        return get_current_app()


def own_option(task: Any, name: str) -> Any:
    """Return what the task itself says about an option; None where only the settings say something."""
    value = task.__dict__.get(name)
    if value is None and name not in task.__dict__:
        value = getattr(type(task), name, None)
    return getattr(task, name) if isinstance(value, property) else value


def warn_misspelt(function: Any, base: Any, options: dict[str, Any], *, stacklevel: int) -> None:
    """Warn of options that become attributes of the task, as any may, but look like one that means something."""
    # `Request` is refused where the task is made.
    known = {*DECORATOR_ONLY, "Request", *(option for option in dir(base) if not option.startswith("_"))}
    for option in sorted(options.keys() - known):
        near = difflib.get_close_matches(option, known, n=1, cutoff=_MISSPELT)
        if near:
            warnings.warn(
                f"the option {option!r} of the task {function.__name__!r} means nothing to umbel and is an attribute "
                f"of the task only; did you mean {near[0]!r}?",
                UmbelWarning,
                stacklevel=stacklevel,
            )
