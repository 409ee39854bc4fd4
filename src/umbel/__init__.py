"""umbel: a distributed task queue with Celery's API.

Names are loaded when they are first used, so that `import umbel` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.app.app import Celery, Umbel
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
    from umbel.app.current import app_or_default, current_app, current_task
    from umbel.app.ids import new_id as uuid
    from umbel.app.result import AsyncResult
    from umbel.app.shared import shared_task
    from umbel.app.task import Task
    from umbel.core.queues import Exchange, Queue

__version__ = "0.1.0"

__all__ = [
    "Umbel",
    "Celery",
    "Task",
    "shared_task",
    "current_app",
    "current_task",
    "app_or_default",
    "AsyncResult",
    "Signature",
    "signature",
    "maybe_signature",
    "subtask",
    "chain",
    "group",
    "chord",
    "chunks",
    "xmap",
    "xstarmap",
    "Queue",
    "Exchange",
    "uuid",
    "bugreport",
    "__version__",
]

_PLACES = {
    "umbel.app.app": ("Umbel", "Celery"),
    "umbel.app.task": ("Task",),
    "umbel.app.shared": ("shared_task",),
    "umbel.app.current": ("current_app", "current_task", "app_or_default"),
    "umbel.app.result": ("AsyncResult",),
    "umbel.app.canvas.names": (
        "Signature", "signature", "maybe_signature", "subtask", "chain", "group", "chord", "chunks", "xmap", "xstarmap",
    ),
    "umbel.core.queues": ("Queue", "Exchange"),
}  # fmt: skip
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def bugreport(app: Any = None) -> str:
    """Return versions and settings of `app` (default: the current one), for reports of errors."""
    found = app if app is not None else _import_module("umbel.app.current").get_current_app()
    report: str = found.bugreport()
    return report


def __getattr__(name: str) -> Any:
    if name == "uuid":
        value = _import_module("umbel.app.ids").new_id
    elif name in _MODULES:
        value = getattr(_import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'umbel' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
