"""Import point `celery._state`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.current import current_app, current_task, get_current_app
from umbel.app.current import set_default as set_default_app
from umbel.app.request import current_task as get_current_task
from umbel.app.request import current_worker_task as get_current_worker_task
from umbel.celery.import_points import missing_names

__all__ = [
    "current_app",
    "current_task",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "set_default_app",
]

__getattr__ = missing_names("_state")
