"""Import point `celery.events.event`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.celery.import_points import missing_names

__all__: list[str] = []

__getattr__ = missing_names("events.event")
