"""Import point `celery.utils.log`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.log import (
    ColorFormatter,
    LoggingProxy,
    base_logger,
    get_logger,
    get_task_logger,
    mlevel,
    task_logger,
    worker_logger,
)
from umbel.celery.import_points import missing_names

__all__ = [
    "ColorFormatter",
    "LoggingProxy",
    "base_logger",
    "get_logger",
    "get_task_logger",
    "mlevel",
    "task_logger",
    "worker_logger",
]

__getattr__ = missing_names("utils.log")
