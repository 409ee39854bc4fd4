"""Import point `celery.utils.saferepr`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.celery.import_points import missing_names
from umbel.core.safe_repr import safe_repr as saferepr

__all__ = ["saferepr"]

__getattr__ = missing_names("utils.saferepr")
