"""Task attributes whose default comes from a setting, and the app that a task belongs to."""

from __future__ import annotations

from typing import Any

from umbel.app.current import get_current_app

__all__ = ["FROM_CONFIG", "AppOf", "from_config", "own_option"]

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
