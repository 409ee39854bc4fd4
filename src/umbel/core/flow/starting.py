"""What a frozen workflow sends first: the calls, and the sizes of the chord headers that this opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umbel.core.flow.shape import (
    Kind,
    Sig,
    body_of,
    chain_of,
    chord_of,
    expand,
    header_group,
    kind_of,
    list_of,
    tasks_of,
    with_tail,
)
from umbel.core.flow.stubs import is_stub, leaf_count, trimmed

__all__ = ["Call", "Opened", "attach", "start", "waiting_body"]


class Call(NamedTuple):
    """One message to send. `options` are those of `apply_async`: `task_id`, `chain` (reversed), `chord`, `link` …"""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]


class Opened(NamedTuple):
    """All members of a chord's header have been given: so many leaves end it, and `body` waits for them."""

    group: str
    size: int
    body: Sig


_NOTHING: Mapping[str, Any] = {}


def start(
    sig: Sig,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Call | Opened]:
    """Give what has to be sent first of a frozen signature, in order; generators of members are read as it goes.

    `args` go in front of those of the first tasks and `kwargs` win over theirs, except where they are immutable.
    `options` win over those of the first tasks; `chain` among them (reversed, as it travels) is what follows `sig`.
    An `Opened` comes after the calls of its header's members.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    rest = list_of(given.pop("chain", None))
    rest.reverse()
    return _start(sig, rest, tuple(args), dict(kwargs or {}), given)


def _start(
    sig: Sig, rest: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
) -> Iterator[Call | Opened]:
    while True:
        kind = kind_of(sig)
        if kind is Kind.TASK:
            yield _call(sig, rest, args, kwargs, options)
            return
        args, kwargs = ((), {}) if sig.get("immutable") else ((*args, *(sig.get("args") or ())), kwargs)
        if kind is Kind.CHAIN:
            steps = list_of(tasks_of(sig))
            if not steps and not rest:
                return
            sig, *rest = [*steps, *rest]
            continue
        if kind is Kind.CHORD:
            break
        group = expand(sig) if kind is Kind.CHUNKS else sig
        if not rest:
            for member in tasks_of(group):
                yield from _start(member, [], args, kwargs, options)
            return
        sig, rest = chord_of(group, rest[0]), rest[1:]
    yield from _start_chord(sig, rest, args, kwargs, options)


def _start_chord(
    sig: Sig, rest: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
) -> Iterator[Call | Opened]:
    group, own = header_group(sig), body_of(sig)
    following = [*([own] if own is not None else []), *rest]
    if not following:
        yield from _start(group, [], args, kwargs, options)
        return
    body, group_id = waiting_body(following), group["options"]["task_id"]
    size = 0
    for member in tasks_of(group):
        attached = attach(member, body, group_id)
        size += 1 if kind_of(member) is Kind.TASK and not is_stub(member) else leaf_count(attached)
        yield from _start(attached, [], args, kwargs, options)
    if size:
        yield Opened(group_id, size, body)
        return
    yield from _start(body, [], ([],), {}, options)


def attach(member: Sig, body: Sig, group_id: str) -> dict[str, Any]:
    """Return a member of a header whose leaves name the header and the body that waits for them, as they travel."""

    def join(leaf: Sig) -> Sig:
        waits = trimmed(body) if is_stub(leaf) else body
        return {**leaf, "options": {**leaf["options"], "chord": waits, "group_id": group_id}}

    return with_tail(member, join)


def waiting_body(steps: Sequence[Sig]) -> dict[str, Any]:
    """Return the body of a chord and the steps after it as members carry them: the steps are an option of the body.

    Celery: the same since 5.7. Of a failed header its workers see to the errbacks of such a body, and to its steps.
    """
    body, *rest = steps
    if not rest or kind_of(body) is not Kind.TASK or is_stub(body):
        return chain_of(list(steps))
    options = body["options"]
    return {**body, "options": {**options, "chain": [*reversed(rest), *list_of(options.get("chain"))]}}


def _call(sig: Sig, rest: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> Call:
    own = {name: value for name, value in sig["options"].items() if value is not None}
    chain = [*reversed(rest), *list_of(own.pop("chain", None))]
    merged = {**own, **{name: value for name, value in options.items() if name != "group_id" or name not in own}}
    if chain:
        merged["chain"] = chain
    if sig.get("immutable"):
        return Call(sig["task"], tuple(sig.get("args") or ()), dict(sig.get("kwargs") or {}), merged)
    return Call(sig["task"], (*args, *(sig.get("args") or ())), {**(sig.get("kwargs") or {}), **kwargs}, merged)
