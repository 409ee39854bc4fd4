"""Import point `celery.worker.consumer.consumer`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.celery.import_points import missing_names

__all__: list[str] = []

__getattr__ = missing_names("worker.consumer.consumer")
