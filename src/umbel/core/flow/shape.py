"""The dict form of workflows (Celery's): which kind a signature is, and its parts.

A signature is a mapping with `task`, `args`, `kwargs`, `options`, `subtask_type` and `immutable`. Functions that change
one return a copy; what they are given stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import islice
from typing import Any

__all__ = [
    "Kind",
    "Sig",
    "body_of",
    "chain_of",
    "checked_member",
    "chord_of",
    "every_task",
    "expand",
    "header_group",
    "group_of",
    "is_empty",
    "is_stream",
    "kind_of",
    "leaves",
    "list_of",
    "merged",
    "result_id",
    "tasks_of",
    "with_tail",
]

Sig = Mapping[str, Any]


class Kind(StrEnum):
    """What a signature stands for."""

    TASK = "task"
    CHAIN = "chain"
    GROUP = "group"
    CHORD = "chord"
    CHUNKS = "chunks"


_KINDS = {"chain": Kind.CHAIN, "group": Kind.GROUP, "chord": Kind.CHORD, "chunks": Kind.CHUNKS}


def kind_of(sig: Sig) -> Kind:
    """Return the kind; signatures of types that a program has registered itself count as single tasks."""
    kind = sig.get("subtask_type")
    if kind is None:
        return Kind.CHUNKS if sig["task"] == "celery.chunks" else Kind.TASK
    return _KINDS.get(kind, Kind.TASK)


def checked_member(task: Any) -> Any:
    """Return a member of a group or header; raise TypeError where it is no signature."""
    if not isinstance(task, dict):
        raise TypeError(f"groups and chords take signatures (task.s(...)), not {type(task).__name__}")
    return task


def list_of(value: Any) -> list[Any]:
    """Return an option that may be None, one signature or several as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, dict) else list(value)


def tasks_of(sig: Sig) -> Any:
    """Return the tasks of a chain or group as they are held: a list, or a generator that can be read once."""
    tasks = sig["kwargs"].get("tasks")
    if tasks is None:
        return ()
    return (tasks,) if isinstance(tasks, dict) else tasks


def body_of(sig: Sig) -> Sig | None:
    """Return the body of a chord with the keyword arguments that the chord holds for it; None where it has none."""
    kwargs = sig["kwargs"]
    body: Sig | None = kwargs.get("body")
    if body is None:
        return None
    more = kwargs.get("kwargs")
    return {**body, "kwargs": {**(body.get("kwargs") or {}), **more}} if more else body


def header_group(sig: Sig) -> dict[str, Any]:
    """Return the header of a chord as a group; the group's id is the chord's where the header has none."""
    header = sig["kwargs"].get("header")
    if isinstance(header, dict):
        if kind_of(header) in (Kind.GROUP, Kind.CHUNKS):
            group = expand(header) if kind_of(header) is Kind.CHUNKS else header
            if group["options"].get("task_id") or not sig["options"].get("task_id"):
                return dict(group)
            return {**group, "options": {**group["options"], "task_id": sig["options"]["task_id"]}}
        header = [header]
    given = sig["options"].get("task_id")
    return group_of(() if header is None else header, {"task_id": given} if given else {})


def group_of(tasks: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return a group in its dict form."""
    return _composite("celery.group", "group", {"tasks": tasks}, options)


def chain_of(steps: list[Any]) -> dict[str, Any]:
    """Return steps as one signature: the step itself where there is only one."""
    if len(steps) == 1:
        return dict(steps[0])
    last = steps[-1] if steps else None
    task_id = result_id(last) if last is not None else None
    return _composite("celery.chain", "chain", {"tasks": steps}, {"task_id": task_id} if task_id else {})


def chord_of(group: Sig, body: Sig | None, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the chord of a group and a body."""
    if options is None:
        task_id = group["options"].get("task_id")
        options = {"task_id": task_id} if task_id else {}
    return _composite("celery.chord", "chord", {"kwargs": {}, "header": group, "body": body}, options)


def _composite(task: str, kind: str, kwargs: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task,
        "args": (),
        "kwargs": kwargs,
        "options": options,
        "subtask_type": kind,
        "immutable": False,
    }


def result_id(sig: Sig) -> str | None:
    """Return the id under which the result of a frozen signature is known: of a chord, its body's."""
    while True:
        kind = kind_of(sig)
        if kind is Kind.CHORD:
            body = body_of(sig)
            sig = body if body is not None else header_group(sig)
        elif kind is Kind.CHAIN and (tasks := list_of(tasks_of(sig))):
            sig = tasks[-1]
        else:
            found: str | None = sig["options"].get("task_id")
            return found


def expand(sig: Sig) -> dict[str, Any]:
    """Return chunks as the group of `celery.starmap` calls that they stand for, `n` items to a call."""
    kwargs = sig["kwargs"]
    inner, size = kwargs["task"], max(1, int(kwargs["n"]))
    return group_of(_starmaps(inner, iter(kwargs["it"]), size), dict(sig["options"]))


def _starmaps(inner: Sig, items: Iterator[Any], size: int) -> Iterator[dict[str, Any]]:
    while part := list(islice(items, size)):
        yield {
            "task": "celery.starmap",
            "args": (),
            "kwargs": {"task": inner, "it": part},
            "options": {},
            "subtask_type": None,
            "immutable": True,
        }


def is_stream(tasks: Any) -> bool:
    """Tell whether the tasks of a group are a generator, which can be read once."""
    return not isinstance(tasks, (list, tuple)) and isinstance(tasks, Iterator)


def is_empty(sig: Sig) -> bool:
    """Tell whether there is nothing to run: an empty group or chain, or one that holds only such."""
    kind = kind_of(sig)
    if kind not in (Kind.CHAIN, Kind.GROUP):
        return False
    tasks = tasks_of(sig)
    return not is_stream(tasks) and all(is_empty(task) for task in tasks)


def leaves(sig: Sig) -> Iterator[Sig]:
    """Give the tasks whose ends are the end of a frozen signature: the members of a group, the last of a chain."""
    waiting = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHAIN:
            waiting.extend(list_of(tasks_of(one))[-1:])
        elif kind is Kind.GROUP:
            waiting.extend(reversed(list(tasks_of(one))))
        elif kind is Kind.CHORD:
            body = body_of(one)
            waiting.append(body if body is not None else header_group(one))
        else:
            yield one


def every_task(sig: Sig) -> Iterator[Sig]:
    """Give all single tasks of a frozen signature, in no order."""
    waiting = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind in (Kind.CHAIN, Kind.GROUP):
            waiting.extend(tasks_of(one))
        elif kind is Kind.CHORD:
            body = body_of(one)
            waiting += [header_group(one)] if body is None else [header_group(one), body]
        else:
            yield one


def with_tail(sig: Sig, change: Callable[[Sig], Sig]) -> dict[str, Any]:
    """Return a copy whose `leaves` are those that `change` makes of them; the rest is shared."""
    kind = kind_of(sig)
    if kind is Kind.CHAIN:
        steps = list_of(tasks_of(sig))
        if not steps:
            return dict(sig)
        return {**sig, "kwargs": {**sig["kwargs"], "tasks": [*steps[:-1], with_tail(steps[-1], change)]}}
    if kind is Kind.GROUP:
        return {**sig, "kwargs": {**sig["kwargs"], "tasks": [with_tail(each, change) for each in tasks_of(sig)]}}
    if kind is Kind.CHORD:
        body = body_of(sig)
        if body is None:
            return {**sig, "kwargs": {**sig["kwargs"], "header": with_tail(header_group(sig), change)}}
        return {**sig, "kwargs": {**sig["kwargs"], "kwargs": {}, "body": with_tail(body, change)}}
    return dict(change(sig))


def merged(sigs: Iterable[Any], more: Iterable[Any]) -> list[Any]:
    """Return both lists in order, each signature once."""
    found = list(sigs)
    for one in more:
        if one not in found:
            found.append(one)
    return found
