"""Import point `celery.utils`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from functools import cached_property

from umbel.app.ids import new_id as gen_unique_id
from umbel.app.ids import new_id as uuid
from umbel.app.loading import load_symbol as get_cls_by_name
from umbel.app.nodenames import nodename, nodesplit
from umbel.app.registry import gen_task_name
from umbel.celery.import_points import missing_names

__all__ = ["cached_property", "gen_task_name", "gen_unique_id", "get_cls_by_name", "nodename", "nodesplit", "uuid"]

__getattr__ = missing_names("utils")
