"""Import point `celery.app.registry`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.registry import TaskRegistry
from umbel.celery.import_points import missing_names

__all__ = ["TaskRegistry"]

__getattr__ = missing_names("app.registry")
