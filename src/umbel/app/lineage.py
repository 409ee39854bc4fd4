"""Results as Celery's tuples, `((id, parent), members)`: of workflows of any length, and short enough to be stored."""

from __future__ import annotations

from typing import Any

__all__ = ["shortened", "tuple_of"]

#: How many results before a child are stored with it. Celery stores all; then no task could send a long chain, since
#: what is nested so deeply has no JSON form that every reader takes.
_LEVELS = 16


def tuple_of(result: Any) -> Any:
    """Return the tuple of a result, with those of all that came before it and of the members of groups."""
    line = []
    while result is not None:
        line.append(result)
        result = result.parent
    found: Any = None
    for one in reversed(line):
        results = getattr(one, "results", None)
        found = ((one.id, found), None if results is None else [tuple_of(member) for member in results])
    return found


def shortened(value: Any, levels: int = _LEVELS) -> Any:
    """Return the tuple of a child with no more than so many results before it, and fewer within groups."""
    (task_id, above), members = value
    if above is None and not members:
        return value
    line = [(task_id, members)]
    while above is not None and len(line) < levels:
        (task_id, above), members = above if isinstance(above[0], (tuple, list)) else (above, None)
        line.append((task_id, members))
    found: Any = None
    for task_id, members in reversed(line):
        kept = None if members is None else [shortened(member, max(1, levels // 4)) for member in members]
        found = ((task_id, found), kept)
    return found
