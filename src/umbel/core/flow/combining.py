"""Bring a workflow into the form that is run: flat steps of a chain, flat members of a group, options where they act.

Celery's rules (`celery.canvas`): nested chains and groups are flattened, empty groups and chains fall out, a group of
one inside a chain is its task, a group with a step after it is a chord with that step as body. What follows the body
of a chord inside a chain is a step of the chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from umbel.core.flow.shape import (
    Kind,
    Sig,
    body_of,
    chord_of,
    expand,
    header_group,
    is_empty,
    is_stream,
    kind_of,
    list_of,
    merged,
    tasks_of,
)

__all__ = [
    "handed_down",
    "members",
    "spread_chain",
    "spread_chord",
    "steps",
    "with_errbacks",
    "with_id",
    "with_links",
    "with_options",
]

#: Options of a whole that say who it is, and are not handed down to its parts.
_OWN = frozenset({"task_id", "group_id", "group_index", "chord", "root_id", "parent_id", "reply_to"})
#: What only the first messages of a chord heed.
_DELAYS = frozenset({"countdown", "eta"})
#: How often Celery asks whether a header is complete; here the last member says so.
_POLLING = frozenset({"interval", "max_retries"})


def steps(sig: Sig) -> list[Sig]:
    """Return what runs one after the other: the flat steps of a chain; of anything else itself (and what follows the
    body of a chord). Options given to a chain are with the steps that they are for.
    """
    kind = kind_of(sig)
    if kind is Kind.TASK or kind is Kind.GROUP:
        return [sig]
    if kind is Kind.CHAIN and not sig["options"] and _is_plain(tasks := list_of(tasks_of(sig))):
        return tasks
    flat: list[Sig] = []
    waiting: list[Sig] = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHAIN:
            waiting.extend(reversed(spread_chain(one)))
        elif kind is Kind.CHORD:
            first, rest = _split_body(one)
            flat.append(first)
            waiting.extend(reversed(rest))
        else:
            flat.append(one)
    if len(flat) < 2:
        return flat
    return _joined(_unrolled(flat))


def _is_plain(tasks: list[Sig]) -> bool:
    """Tell whether these are single tasks, more than one of them: what most chains are made of."""
    return len(tasks) > 1 and all(kind_of(task) is Kind.TASK for task in tasks)


def _unrolled(flat: list[Sig]) -> list[Sig]:
    """Drop what is empty, and take the one task out of a group of one."""
    found: list[Sig] = []
    for one in flat:
        if is_empty(one):
            continue
        if kind_of(one) is Kind.GROUP and not is_stream(tasks_of(one)):
            only = list(members(one))
            if len(only) == 1:
                found.extend(steps(only[0]))
                continue
        found.append(one)
    return found or flat[:1]


def _joined(flat: list[Sig]) -> list[Sig]:
    """Make a chord of each group that something follows."""
    found: list[Sig] = []
    for one in reversed(flat):
        found.append(_with_next(one, found) if found else one)
    found.reverse()
    return found


def _with_next(one: Sig, following: list[Sig]) -> Sig:
    """Return a group as the chord that takes up the next step; the same for a chord whose body is a group."""
    kind = kind_of(one)
    if kind in (Kind.GROUP, Kind.CHUNKS):
        return chord_of(expand(one) if kind is Kind.CHUNKS else one, following.pop())
    body = body_of(one) if kind is Kind.CHORD else None
    if body is None or kind_of(body) is Kind.TASK:
        return one
    return {**one, "kwargs": {**one["kwargs"], "kwargs": {}, "body": _with_next(body, following)}}


def _split_body(chord: Sig) -> tuple[Sig, list[Sig]]:
    """Return a chord with the first step of its body, and the steps of the body that follow."""
    body = body_of(chord)
    rest: list[Sig] = []
    while body is not None and kind_of(body) is Kind.CHAIN:
        parts = spread_chain(body)
        if not parts:
            body = None
            break
        body, rest = parts[0], [*parts[1:], *rest]
    if body is not None and kind_of(body) is Kind.CHORD:
        body, more = _split_body(body)
        rest = [*more, *rest]
    if not rest:
        return chord, rest
    return {**chord, "kwargs": {**chord["kwargs"], "kwargs": {}, "body": body}}, rest


def spread_chain(chain: Sig) -> list[Sig]:
    """Return the steps of a chain with the chain's own options handed to those that they are for."""
    parts = [part for part in list_of(tasks_of(chain)) if not is_empty(part)] or list_of(tasks_of(chain))[:1]
    options = chain["options"]
    if not parts or not options:
        return parts
    if options.get("link_error"):
        parts = [with_errbacks(part, options["link_error"]) for part in parts]
    if options.get("link"):
        parts[-1] = with_links(parts[-1], options["link"])
    if options.get("task_id"):
        parts[-1] = with_id(parts[-1], options["task_id"])
    first = {name: value for name, value in options.items() if name not in _OWN and name not in ("link", "link_error")}
    if first:
        parts[0] = with_options(parts[0], first)
    return parts


def handed_down(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a group that are for its members."""
    return {name: value for name, value in options.items() if name not in _OWN}


def members(group: Sig) -> Iterator[Sig]:
    """Give the members of a group, nested groups flattened, with the options given to the groups; empty ones are left
    out. A generator is read as the members are asked for.
    """
    options = handed_down(group["options"])
    for one in tasks_of(group):
        kind = kind_of(one)
        if options:
            one = with_options(one, options)
        if kind is Kind.CHAIN and not _is_plain(list_of(tasks_of(one))) and len(parts := steps(one)) == 1:
            one, kind = parts[0], kind_of(parts[0])
        if kind is Kind.GROUP or kind is Kind.CHUNKS:
            yield from members(expand(one) if kind is Kind.CHUNKS else one)
        elif kind is not Kind.CHAIN or not is_empty(one):
            yield one


def spread_chord(chord: Sig) -> tuple[dict[str, Any], Sig | None]:
    """Return the header (a group) and the body of a chord, each with the options of the chord that are for it.

    Celery: delays are for the header, links for the body, all else for both; `task_id` names the header.
    """
    group, body = header_group(chord), body_of(chord)
    options = {name: value for name, value in chord["options"].items() if name not in _OWN and name not in _POLLING}
    if not options:
        return group, body
    links = {name: options.pop(name) for name in ("link", "link_error") if name in options}
    if body is not None:
        both = {name: value for name, value in options.items() if name not in _DELAYS}
        body = with_options(body, both) if both else body
        body = with_links(body, links["link"]) if links.get("link") else body
        body = with_errbacks(body, links["link_error"]) if links.get("link_error") else body
    if options:
        group["options"] = {**group["options"], **options}
    return group, body


def with_options(sig: Sig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with options that win over its own; links are added to those it has."""
    new = dict(sig["options"])
    for name, value in options.items():
        if name in ("link", "link_error"):
            new[name] = merged(list_of(new.get(name)), list_of(value))
        else:
            new[name] = value
    return {**sig, "options": new}


def with_links(sig: Sig, links: Any) -> dict[str, Any]:
    """Return a copy that calls `links` after its success: a chain's last step, a chord's body, a group's first."""
    return _changed(sig, "link", list_of(links), last=True)


def with_errbacks(sig: Sig, errbacks: Any) -> dict[str, Any]:
    """Return a copy that calls `errbacks` after a failure: every step of a chain, every member of a group, a body."""
    return _changed(sig, "link_error", list_of(errbacks), last=False)


def _changed(sig: Sig, name: str, more: list[Any], *, last: bool) -> dict[str, Any]:
    kind = kind_of(sig)
    if kind is Kind.GROUP:
        tasks = list(tasks_of(sig))
        if last:
            frozen = [{**each, "immutable": True} for each in more]
            tasks[:1] = [_changed(each, name, frozen, last=last) for each in tasks[:1]]
        else:
            tasks = [_changed(each, name, more, last=last) for each in tasks]
        return {**sig, "kwargs": {**sig["kwargs"], "tasks": tasks}}
    if kind is Kind.CHORD:
        body = body_of(sig)
        if body is None:
            return dict(sig)
        changed = _changed(body, name, more, last=last)
        return {**sig, "kwargs": {**sig["kwargs"], "kwargs": {}, "body": changed}}
    return {**sig, "options": {**sig["options"], name: merged(list_of(sig["options"].get(name)), more)}}


def with_id(sig: Sig, task_id: str) -> dict[str, Any]:
    """Return a copy whose result is known by `task_id`."""
    kind = kind_of(sig)
    body = body_of(sig) if kind is Kind.CHORD else None
    if body is not None:
        return {**sig, "kwargs": {**sig["kwargs"], "kwargs": {}, "body": with_id(body, task_id)}}
    return {**sig, "options": {**sig["options"], "task_id": task_id}}
