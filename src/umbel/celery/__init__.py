"""Import point `celery`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.app import Celery
from umbel.app.canvas.names import (
    Signature,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from umbel.app.current import current_app, current_task
from umbel.app.ids import new_id as uuid
from umbel.app.shared import shared_task
from umbel.app.task import Task
from umbel.celery.import_points import missing_names

__all__ = [
    "Celery",
    "Signature",
    "Task",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
]

__getattr__ = missing_names("")
