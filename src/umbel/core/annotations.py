"""Apply `task_annotations`: changes that the configuration makes to the attributes and methods of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel.core.errors import ImproperlyConfigured

__all__ = ["Annotations"]


class _Table:
    """Annotations by task name; `*` stands for every task."""

    def __init__(self, table: Mapping[Any, Any]) -> None:
        for name, changes in table.items():
            if not isinstance(name, str) or not isinstance(changes, Mapping):
                raise ImproperlyConfigured(
                    f"task_annotations: {name!r} must be a task name (or '*') with a dict of attributes, "
                    f"not {changes!r}"
                )
        self._table = table

    def annotate(self, task: Any) -> Mapping[str, Any] | None:
        """Return what is said about this task."""
        return self._table.get(task.name)

    def annotate_any(self) -> Mapping[str, Any] | None:
        """Return what is said about every task."""
        return self._table.get("*")


class Annotations:
    """The prepared value of `task_annotations`; `load` imports what a dotted path names.

    The value is a dict of task names (`*` for every task), an object with `annotate(task)` and perhaps
    `annotate_any()`, the dotted path of either, a class of such objects, or a list of these (Celery: same).
    """

    def __init__(self, value: Any, load: Callable[[str], Any]) -> None:
        if value is None:
            items: tuple[Any, ...] = ()
        else:
            items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        self._sources = tuple(_source(item, load) for item in items)

    def __bool__(self) -> bool:
        return bool(self._sources)

    def changes(self, task: Any) -> dict[str, Any]:
        """Return what to change in `task`, by attribute; a name that begins with `@` wraps that method.

        Of the sources the first that knows the task counts, and the first that knows every task; what is
        said about
        the task itself goes before what is said about all.
        """
        every: Mapping[str, Any] = next((found for source in self._sources if (found := _annotate_any(source))), {})
        own: Mapping[str, Any] = next((found for source in self._sources if (found := source.annotate(task))), {})
        return {**every, **own}


def _annotate_any(source: Any) -> Mapping[str, Any] | None:
    method = getattr(source, "annotate_any", None)
    found: Mapping[str, Any] | None = method() if method is not None else None
    return found


def _source(item: Any, load: Callable[[str], Any]) -> Any:
    if isinstance(item, str):
        return _source(load(item), load)
    if isinstance(item, Mapping):
        return _Table(item)
    if isinstance(item, type):
        item = item()
    if hasattr(item, "annotate"):
        return item
    raise ImproperlyConfigured(
        f"task_annotations: {item!r} is no annotation: give a dict of task names, an object with "
        f"annotate(task), "
        "or the dotted path of one"
    )
