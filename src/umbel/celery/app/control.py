"""Import point `celery.app.control`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.control import Control, Inspect
from umbel.celery.import_points import missing_names

__all__ = ["Control", "Inspect"]

__getattr__ = missing_names("app.control")
