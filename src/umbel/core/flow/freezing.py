"""Give a workflow its ids: every task, group and chord, and each leaf of a group its place among the group's leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from umbel.core.flow.combining import members, spread_chord, steps
from umbel.core.flow.shape import Kind, Sig, chain_of, chord_of, expand, group_of, kind_of, with_tail

__all__ = ["freeze", "frozen_members"]

NewId = Callable[[], str]


def freeze(sig: Sig, new_id: NewId) -> dict[str, Any]:
    """Return the workflow as it will run, with ids; those that it has stay, so that freezing again changes nothing.

    A chain of one is its step. The leaves of a group (members of nested groups, last tasks of chains, bodies of chords)
    are numbered from 0 as `group_index` beneath the group's id as `group_id`. Those of a header name their group only
    once they are sent: a Celery worker that opens the chord gives the header a new id, and keeps what has one already.
    """
    return chain_of([_frozen_step(each, new_id) for each in steps(sig)])


def _frozen_step(sig: Sig, new_id: NewId) -> dict[str, Any]:
    kind = kind_of(sig)
    if kind is Kind.TASK:
        options = sig["options"]
        return dict(sig) if options.get("task_id") else {**sig, "options": {**options, "task_id": new_id()}}
    if kind is Kind.CHORD:
        return _frozen_chord(sig, new_id)
    if kind is Kind.CHUNKS:
        sig = expand(sig)
    return _frozen_group(sig, new_id, header=False)


def _frozen_chord(sig: Sig, new_id: NewId) -> dict[str, Any]:
    group, body = spread_chord(sig)
    group = _frozen_group(group, new_id, header=True)
    if body is not None:
        body = freeze(body, new_id)
        if kind_of(body) is Kind.TASK and not body["options"].get("group_id"):
            # As Celery's workers write it: the body names the header that it follows.
            body = {**body, "options": {**body["options"], "group_id": group["options"]["task_id"]}}
    return chord_of(group, body)


def _frozen_group(group: Sig, new_id: NewId, *, header: bool) -> dict[str, Any]:
    group_id = group["options"].get("task_id") or new_id()
    frozen = list(frozen_members(group, group_id, new_id, header=header))
    return group_of(frozen, {"task_id": group_id})


def frozen_members(
    group: Sig, group_id: str, new_id: NewId, *, header: bool, places: Iterator[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Give the members of a group with their ids and places; `header` says that a body waits for them.

    `places` gives the numbers where the group is read in parts; without it they begin at 0.
    """
    places = count() if places is None else places

    def place(leaf: Sig) -> Sig:
        options = leaf["options"]
        if not header and options.get("chord"):
            # The group ends a chain in the header of a chord that is open already: its leaves count there.
            return leaf
        index = next(places)
        for _ in range(leaf.get("leaves", 1) - 1):
            next(places)
        if header:
            kept = {name: value for name, value in options.items() if name != "group_id"}
            return {**leaf, "options": {**kept, "group_index": index}}
        return {**leaf, "options": {**options, "group_id": group_id, "group_index": index}}

    for one in members(group):
        yield with_tail(freeze(one, new_id), place)
