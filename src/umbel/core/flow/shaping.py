"""The shape of the values of a header: a member that ends in a group gives a list of its own (Celery: the same)."""

from __future__ import annotations

from typing import Any

from umbel.core.flow.shape import Kind, Sig, body_of, header_group, is_stream, kind_of, list_of, tasks_of
from umbel.core.flow.stubs import is_stub

__all__ = ["ends_in_group", "shape_of", "shapes"]


def shapes(sig: Sig) -> dict[str, Any]:
    """Return the shapes (`shape_of`) of those headers of a frozen workflow that have a member which ends in a group."""
    found: dict[str, Any] = {}
    waiting: list[Sig] = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHORD:
            body = body_of(one)
            waiting += [header_group(one), *([] if body is None else [body])]
            _add(found, header_group(one))
        elif kind is Kind.CHAIN:
            steps = list_of(tasks_of(one))
            waiting += steps
            for step in steps[:-1]:
                _add(found, step)
        elif kind is Kind.GROUP and not is_stream(tasks_of(one)):
            waiting += [member for member in tasks_of(one) if kind_of(member) is not Kind.TASK]
    return found


def _add(found: dict[str, Any], group: Sig) -> None:
    if kind_of(group) is not Kind.GROUP or is_stream(tasks_of(group)) or not any(map(ends_in_group, tasks_of(group))):
        return
    # A header with stubs was frozen and described before: what they stand for cannot be seen any more.
    if not any(is_stub(_last(member)) for member in tasks_of(group)):
        found[group["options"]["task_id"]] = shape_of(group)


def ends_in_group(sig: Sig) -> bool:
    """Tell whether the result of a signature is that of a group."""
    return kind_of(_last(sig)) is Kind.GROUP


def shape_of(sig: Sig) -> Any:
    """Return the result of a frozen signature as Celery's results describe themselves, without what came before it."""
    last = _last(sig)
    members = [shape_of(member) for member in tasks_of(last)] if kind_of(last) is Kind.GROUP else None
    return [[last["options"].get("task_id"), None], members]


def _last(sig: Sig) -> Sig:
    """Return the task or group whose result is that of a signature."""
    while True:
        kind = kind_of(sig)
        if kind is Kind.CHAIN and (steps := list_of(tasks_of(sig))):
            sig = steps[-1]
        elif kind is Kind.CHORD:
            body = body_of(sig)
            sig = header_group(sig) if body is None else body
        else:
            return sig
