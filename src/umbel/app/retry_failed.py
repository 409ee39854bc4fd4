"""Run again what failed in a workflow, and let it go on: `retry_failed` of results (not in Celery)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from umbel.app import kept as keeping
from umbel.app.following import all_doomed
from umbel.app.kept import KeptGroup, KeptTask
from umbel.app.parts import decode_part
from umbel.app.result_graph import build_graph, is_set
from umbel.core import protocol, states
from umbel.core.errors import NotSupportedError, TaskError
from umbel.core.flow.stubs import RESUME
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.message import Message, Part
from umbel.core.protocol import Quarantined

__all__ = ["retry_failed"]

#: Tasks in one question to the store or one step of the broker.
_CHUNK = 1000
_PAUSE = 0.05


class _Found(NamedTuple):
    """What is to be run again, what its failure took with it, and the headers that wait for it again."""

    tasks: dict[str, KeptTask]
    doomed: set[str]
    groups: dict[str, KeptGroup]


def retry_failed(result: Any, timeout: float = 10.0) -> list[str]:
    """Run again what failed in the workflow of a result; return the ids of the tasks that are sent again.

    See `AsyncResult.retry_failed`.
    """
    nodes = [node for node in build_graph(result, intermediate=True) if not is_set(node)]
    if any(node.app is None for node in nodes):
        raise NotSupportedError(
            "tasks that were called here (apply, task_always_eager) have no message: call them again"
        )
    app = result.app
    if app.store is None or app.engine.replies is not None:
        raise NotSupportedError(
            "retry_failed() needs a store that keeps results: set result_backend to Redis or SQLite"
        )
    found = _look(app, [node.id for node in nodes], time.monotonic() + timeout)
    reopened = {group: _staying(app, group, found) for group in found.groups}
    keeping.begin(app, found.tasks)
    for group, parts in reopened.items():
        keeping.reopen(app, group, found.groups[group], parts)
    ended = [*found.tasks, *sorted(found.doomed)]
    for batch in _batches(ended):
        app.store.forget(batch)
    _bury_no_more(app, found.tasks)
    messages = [_again(one.message) for one in found.tasks.values()]
    for chunk in _batches(messages):
        app.client.send(chunk)
    keeping.let_go(app, found.tasks, found.groups)
    _look_anew(result)
    return list(found.tasks)


def _again(message: Message) -> Message:
    """Return the message of the next run: a delay that it had is over, its attempts count on."""
    return msgspec.structs.replace(message, generation=message.generation + 1, due=0.0)


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


# --- what failed ------------------------------------------------------------------------------------------


def _look(app: Any, ids: list[str], deadline: float) -> _Found:
    """Find what failed; waits until those who were to follow have heard of it. Raises TaskError."""
    while True:
        found, trouble = _found(app, ids)
        if not trouble:
            return found
        if trouble is not _WAITING or time.monotonic() >= deadline:
            raise TaskError(trouble)
        time.sleep(_PAUSE)


def _found(app: Any, ids: list[str]) -> tuple[_Found, str]:
    """Return what is known now, and why nothing can be done yet ("": it can)."""
    tasks: dict[str, KeptTask] = {}
    groups: dict[str, KeptGroup] = {}
    doomed: set[str] = set()
    fresh, asked = ids, set[str]()
    while fresh:
        asked.update(fresh)
        more = _failed(app, fresh)
        tasks.update(more)
        doomed |= _followers(app, more)
        missing = {group for one in more.values() for group in one.groups} - groups.keys()
        members: set[str] = set()
        while missing:
            kept = keeping.kept_groups(app, missing)
            if missing - kept.keys():
                return _Found(tasks, doomed, groups), _WAITING
            groups.update(kept)
            doomed.update(one for group in kept.values() for one in group.ids)
            members.update(one for group in kept.values() for one in _failed_members(app, group))
            missing = {outer for group in kept.values() for outer in group.groups} - groups.keys()
        fresh = sorted(members - asked)
    doomed -= tasks.keys()
    found = _Found(tasks, doomed, groups)
    if not tasks:
        return found, _nothing(app, ids)
    if not any(one.begun for one in tasks.values()) and not _have_ended(app, doomed):
        return found, _WAITING
    return found, _unable(app, found)


_WAITING = (
    "the workflow has not ended yet: a task of the header runs, or what was to follow has not heard of the failure; "
    "wait for the result and try again (a chord that a worker of Celery's has ended cannot be run again)"
)


def _failed(app: Any, ids: Collection[str]) -> dict[str, KeptTask]:
    """Return what is kept of tasks that have not ended well since."""
    kept = keeping.kept_tasks(app, ids)
    found = _states(app, kept)

    def has_failed(one: str) -> bool:
        state = found.get(one)
        return state == states.FAILURE or (state is None and (kept[one].stateless or kept[one].begun))

    return {one: kept[one] for one in dict.fromkeys(ids) if one in kept and has_failed(one)}


def _followers(app: Any, tasks: dict[str, KeptTask]) -> set[str]:
    stubs = [{**_STUB, "args": [key]} for one in tasks.values() for key in one.pieces]
    found = all_doomed(app, stubs).ids if stubs else ()
    return {*found, *(one for task in tasks.values() for one in task.ids)}


_STUB: dict[str, Any] = {"task": RESUME, "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


def _failed_members(app: Any, group: KeptGroup) -> Iterator[str]:
    for payload in group.payloads:
        ended = decode_part(app.conf, payload)
        if ended.state != states.SUCCESS:
            yield ended.id


def _states(app: Any, ids: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for batch in _batches(list(ids)):
        found.update((one, record.state) for one, record in app.store.get(batch, time.time()).items())
    return found


def _have_ended(app: Any, ids: Collection[str]) -> bool:
    found = _states(app, ids)
    return all(found.get(one) in states.READY_STATES for one in ids)


def _nothing(app: Any, ids: list[str]) -> str:
    found = _states(app, ids)
    failed = [one for one in ids if found.get(one) == states.FAILURE]
    revoked = [one for one in ids if found.get(one) == states.REVOKED]
    if revoked:
        return f"{revoked[0]} was revoked or has expired, and only what failed is run again: send the workflow anew"
    if not failed:
        return "nothing of this workflow has failed, as far as this result knows it: ask the one that sending it gave"
    return (
        f"the message of {failed[0]} is not kept: it belongs to no workflow, or to one whose producer stopped while it "
        "sent it, was larger than result_max_bytes, or result_expires is over; send it anew"
    )


def _unable(app: Any, found: _Found) -> str:
    """Say why something would fail again, or a header not complete, although what failed runs again; "": nothing."""
    now = time.time()
    for one in found.tasks.values():
        head = protocol.read_head(one.message.head, DEFAULT_LIMITS)
        if isinstance(head, Quarantined) or (head.expires is not None and head.expires <= now):
            return f"{one.message.id} was to run until a time that is over (expires): send it anew"
    again = found.tasks.keys() | found.doomed
    for group in found.groups.values():
        for member in _failed_members(app, group):
            if member not in again:
                return (
                    f"{member}, which the header of a chord needs, was revoked or never sent, or its message is not "
                    "kept (result_expires is over, larger than result_max_bytes): the chord cannot complete; send it "
                    "anew"
                )
    return ""


# --- running it again -------------------------------------------------------------------------------------


def _staying(app: Any, group: str, found: _Found) -> list[Part]:
    """Return the parts of the members that ended well."""
    kept = found.groups[group]
    parts = []
    for place, payload in enumerate(kept.payloads):
        ended = decode_part(app.conf, payload)
        if ended.state == states.SUCCESS:
            parts.append(Part(group, keeping.index_of(kept, place), payload, member=ended.id))
    return parts


def _bury_no_more(app: Any, ids: Collection[str]) -> None:
    """Drop the dead letters of tasks that run again."""
    letters = app.dead.pick(None, list(ids)) if app.dead is not None else ()
    if letters:
        app.dead.drop([letter.number for letter in letters])


def _look_anew(result: Any) -> None:
    """Let a result and those around it forget what they have read."""
    waiting = [result]
    while waiting:
        one = waiting.pop()
        if one.parent is not None:
            waiting.append(one.parent)
        if is_set(one):
            if isinstance(one.results, list):
                waiting += one.results
        else:
            one._meta = None
