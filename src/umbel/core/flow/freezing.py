"""Give a workflow its ids: every task, group and chord, and each leaf of a group its place among the group's leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from umbel.core.flow.combining import members, spread_chord, steps
from umbel.core.flow.shape import Kind, Sig, chain_of, chord_of, expand, group_of, kind_of, tasks_of, with_tail

__all__ = ["freeze", "frozen_members"]

NewId = Callable[[], str]


def freeze(sig: Sig, new_id: NewId, *, stream: bool = False) -> dict[str, Any]:
    """Return the workflow as it will run, with ids; those that it has stay, so that freezing again changes nothing.

    A chain of one is its step. The leaves of a group (members of nested groups, last tasks of chains, bodies of chords)
    are numbered from 0 as `group_index` beneath the group's id as `group_id`. With `stream` the members of an outermost
    group or chord header stay a generator, if they are one, and are frozen as they are read.
    """
    found = steps(sig)
    stream = stream and len(found) == 1
    return chain_of([_frozen_step(each, new_id, stream=stream) for each in found])


def _frozen_step(sig: Sig, new_id: NewId, *, stream: bool) -> dict[str, Any]:
    kind = kind_of(sig)
    if kind is Kind.TASK:
        options = sig["options"]
        return dict(sig) if options.get("task_id") else {**sig, "options": {**options, "task_id": new_id()}}
    if kind is Kind.CHORD:
        return _frozen_chord(sig, new_id, stream=stream)
    if kind is Kind.CHUNKS:
        sig = expand(sig)
    return _frozen_group(sig, new_id, header=False, stream=stream)


def _frozen_chord(sig: Sig, new_id: NewId, *, stream: bool) -> dict[str, Any]:
    group, body = spread_chord(sig)
    group = _frozen_group(group, new_id, header=True, stream=stream)
    if body is not None:
        body = freeze(body, new_id)
        if kind_of(body) is Kind.TASK and not body["options"].get("group_id"):
            # As Celery's workers write it: the body names the header that it follows.
            body = {**body, "options": {**body["options"], "group_id": group["options"]["task_id"]}}
    return chord_of(group, body)


def _frozen_group(group: Sig, new_id: NewId, *, header: bool, stream: bool) -> dict[str, Any]:
    group_id = group["options"].get("task_id") or new_id()
    frozen: Any = frozen_members(group, group_id, new_id, header=header)
    if not (stream and isinstance(tasks_of(group), Iterator)):
        frozen = list(frozen)
    return group_of(frozen, {"task_id": group_id})


def frozen_members(group: Sig, group_id: str, new_id: NewId, *, header: bool) -> Iterator[dict[str, Any]]:
    """Give the members of a group with their ids and places; `header` says that a body waits for them."""
    places = count()

    def place(leaf: Sig) -> Sig:
        options = leaf["options"]
        if not header and options.get("chord"):
            # The group ends a chain in the header of a chord that is open already: its leaves count there.
            return leaf
        index = next(places)
        for _ in range(leaf.get("leaves", 1) - 1):
            next(places)
        return {**leaf, "options": {**options, "group_id": group_id, "group_index": index}}

    for one in members(group):
        yield with_tail(freeze(one, new_id), place)
