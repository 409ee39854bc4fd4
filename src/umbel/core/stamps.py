"""Stamps of a message as marks: what a revocation by stamped headers stores, and what a message is compared with.

A mark stands for one header and one value. It is kept among the revoked ids, so that it is as durable as these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel.core import json_types
from umbel.core.head_reader import headers_of

__all__ = ["marks_for", "marks_of"]

#: How umbel and Celery write that a message has no stamps.
_NONE = (b'"stamped_headers":null', b'"stamped_headers": null', b'"stamped_headers":[]', b'"stamped_headers": []')
#: More stamps of one message than these are not compared (a bound on what strangers can make us do).
_MOST = 100


def marks_for(headers: Mapping[str, Any]) -> list[str]:
    """Return the marks of a revocation: {header: value, or list of values of which one has to fit}."""
    return [_mark(name, value) for name, values in headers.items() for value in _values(values)]


def marks_of(head: bytes) -> list[str]:
    """Return the marks of a message's stamps; nearly always none, which costs one look at its head."""
    if _NONE[0] in head or any(none in head for none in _NONE):
        return []
    headers = headers_of(head)
    stamps, names = headers.get("stamps"), headers.get("stamped_headers")
    if not isinstance(stamps, dict) or not isinstance(names, list):
        return []
    marks = [_mark(name, value) for name in names if isinstance(name, str) for value in _values(stamps.get(name))]
    return marks[:_MOST]


def _values(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def _mark(name: str, value: Any) -> str:
    return f"stamp:{name}={json_types.dumps(value).decode()}"
