"""Import point `celery.result`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
)
from umbel.celery.import_points import missing_names

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]

__getattr__ = missing_names("result")
