"""Import point `celery.app.base`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.app import Celery
from umbel.app.app import Celery as App
from umbel.celery.import_points import missing_names

__all__ = ["App", "Celery"]

__getattr__ = missing_names("app.base")
