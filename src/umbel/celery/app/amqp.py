"""Import point `celery.app.amqp`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.amqp import Amqp as AMQP  # noqa: N814
from umbel.celery.import_points import missing_names
from umbel.core.queues import Queues

__all__ = ["AMQP", "Queues"]

__getattr__ = missing_names("app.amqp")
