"""Import point `celery.app.utils`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.conf import Settings
from umbel.app.find import find_app
from umbel.celery.import_points import missing_names
from umbel.core.urls import mask_url as sanitize_url

__all__ = ["Settings", "find_app", "sanitize_url"]

__getattr__ = missing_names("app.utils")
