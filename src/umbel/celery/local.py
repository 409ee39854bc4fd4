"""Import point `celery.local`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.current import Proxy
from umbel.celery.import_points import missing_names

__all__ = ["Proxy"]

__getattr__ = missing_names("local")
