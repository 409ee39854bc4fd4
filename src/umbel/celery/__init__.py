"""Import point `celery`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.app import Celery
from umbel.app.current import current_app, current_task
from umbel.app.ids import new_id as uuid
from umbel.app.shared import shared_task
from umbel.app.signature import Signature, maybe_signature, signature, subtask
from umbel.app.task import Task
from umbel.celery.import_points import missing_names

__all__ = [
    "Celery",
    "Signature",
    "Task",
    "current_app",
    "current_task",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
]

__getattr__ = missing_names("")
