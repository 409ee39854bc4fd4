"""Import point `celery.canvas`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.canvas.names import (
    Signature,
    StampingVisitor,
    _chain,
    _chord,
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
from umbel.celery.import_points import missing_names

__all__ = [
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]

__getattr__ = missing_names("canvas")
