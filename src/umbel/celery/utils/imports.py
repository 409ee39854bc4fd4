"""Import point `celery.utils.imports`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.loading import load_symbol as symbol_by_name
from umbel.app.registry import gen_task_name
from umbel.celery.import_points import missing_names

__all__ = ["gen_task_name", "symbol_by_name"]

__getattr__ = missing_names("utils.imports")
