"""Import point `celery.app.task`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.request import Context
from umbel.app.task import Task
from umbel.celery.import_points import missing_names

__all__ = ["Context", "Task"]

__getattr__ = missing_names("app.task")
