"""Import point `celery.utils.serialization`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.exceptions_io import register_exception
from umbel.celery.import_points import missing_names

__all__ = ["register_exception"]

__getattr__ = missing_names("utils.serialization")
