"""Tasks that every app has: umbel's own, and those of Celery that messages of its programs name."""

from __future__ import annotations

from typing import Any

from umbel.app.celery_tasks import CELERY_TASKS
from umbel.app.flow_tasks import FLOW_TASKS

__all__ = ["add_builtin_tasks"]


def add_builtin_tasks(app: Any, registry: dict[str, Any]) -> None:
    """Register the tasks for an app, except those whose names it has taken itself."""
    for cls in (*FLOW_TASKS, *CELERY_TASKS):
        if cls.name not in registry:
            made: Any = type(cls.__qualname__, (cls,), {"app": app, "abstract": False, "__module__": cls.__module__})
            task = made()
            task.__dict__["app"] = app
            registry[task.name] = task
