"""Import point `celery.canvas`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.signature import Signature, maybe_signature, signature, subtask
from umbel.celery.import_points import missing_names

__all__ = ["Signature", "maybe_signature", "signature", "subtask"]

__getattr__ = missing_names("canvas")
