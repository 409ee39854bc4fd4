"""Import point `celery.app.log`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.log import Logging, TaskFormatter
from umbel.celery.import_points import missing_names

__all__ = ["Logging", "TaskFormatter"]

__getattr__ = missing_names("app.log")
