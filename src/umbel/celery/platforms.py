"""Import point `celery.platforms`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from os import EX_CANTCREAT, EX_OK, EX_UNAVAILABLE, EX_USAGE

from umbel.celery.import_points import missing_names

__all__ = ["EX_CANTCREAT", "EX_OK", "EX_UNAVAILABLE", "EX_USAGE"]

__getattr__ = missing_names("platforms")
