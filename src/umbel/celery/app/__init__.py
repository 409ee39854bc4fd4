"""Import point `celery.app`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.app import Celery
from umbel.app.current import app_or_default
from umbel.app.shared import shared_task
from umbel.celery.import_points import missing_names

__all__ = ["Celery", "app_or_default", "shared_task"]

__getattr__ = missing_names("app")
