"""Import point `celery.app.routes`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.celery.import_points import missing_names
from umbel.core.routing import Router

__all__ = ["Router"]

__getattr__ = missing_names("app.routes")
