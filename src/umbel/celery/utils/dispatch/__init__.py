"""Import point `celery.utils.dispatch`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.signals import Signal
from umbel.celery.import_points import missing_names

__all__ = ["Signal"]

__getattr__ = missing_names("utils.dispatch")
