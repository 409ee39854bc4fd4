"""Run a workflow in the caller (`apply`, `task_always_eager`): one task after the other, without messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.app.calling import add_to_trail
from umbel.app.eager import apply_eager
from umbel.app.group_result import GroupResult
from umbel.app.ids import new_id
from umbel.core import states
from umbel.core.errors import NotRegistered
from umbel.core.flow.freezing import freeze
from umbel.core.flow.shape import Kind, Sig, body_of, header_group, kind_of, list_of, tasks_of

__all__ = ["run_here"]


def run_here(
    app: Any,
    sig: Sig,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    throw: bool | None = None,
    propagate: bool = True,
    add_to_parent: bool = True,
) -> Any:
    """Run all tasks of a workflow here; return its result (None for an empty chain)."""
    frozen = freeze(sig, new_id)
    result = _Run(app, throw, propagate).run(frozen, tuple(args), dict(kwargs), None)
    if result is not None:
        add_to_trail(result, {"add_to_parent": add_to_parent})
    return result


class _Run:
    def __init__(self, app: Any, throw: bool | None, propagate: bool) -> None:
        self.app = app
        self.throw = throw
        self.propagate = propagate

    def run(self, sig: Sig, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Any) -> Any:
        """Run a frozen signature; `parent` is the result of what ran before it."""
        kind = kind_of(sig)
        if kind is Kind.CHAIN:
            return self._chain(sig, args, kwargs, parent)
        if kind is Kind.GROUP:
            group = self._group(sig, args, kwargs, parent)
            only = group.results[0] if len(group.results) == 1 else None
            return only if isinstance(only, GroupResult) else group
        if kind is Kind.CHORD:
            group, body = self._group(header_group(sig), args, kwargs, parent), body_of(sig)
            return group if body is None else self.run(body, (_values(group, self.propagate),), {}, group)
        return self._task(sig, args, kwargs, parent)

    def _group(self, sig: Sig, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Any) -> GroupResult[Any]:
        results = [self.run(member, args, kwargs, None) for member in tasks_of(sig)]
        return GroupResult(sig["options"]["task_id"], results, parent, self.app)

    def _chain(self, sig: Sig, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Any) -> Any:
        """Run steps until one does not succeed (Celery 5.7: the same)."""
        for step in list_of(tasks_of(sig)):
            parent = self.run(step, args, kwargs, parent)
            if not _went_well(parent):
                break
            args, kwargs = (_values(parent, True),), {}
        return parent

    def _task(self, sig: Sig, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Any) -> Any:
        task = self.app.tasks.get(sig["task"])
        if task is None:
            raise NotRegistered(sig["task"])
        own = tuple(sig.get("args") or ())
        named = dict(sig.get("kwargs") or {})
        if not sig.get("immutable"):
            own, named = (*args, *own), {**named, **kwargs}
        options = {name: value for name, value in sig["options"].items() if value is not None}
        result = apply_eager(task, own, named, throw=self.throw, **options)
        result.parent = parent
        return result


def _went_well(result: Any) -> bool:
    if isinstance(result, GroupResult):
        return all(map(_went_well, result.results))
    return bool(result.state == states.SUCCESS)


def _values(result: Any, propagate: bool) -> Any:
    if isinstance(result, GroupResult):
        return [_values(one, propagate) for one in result.results]
    return result.maybe_throw(propagate=propagate)
