"""What will never run once something before it has failed, and who waits for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from umbel.core.flow.shape import Kind, Sig, body_of, header_group, kind_of, list_of, tasks_of
from umbel.core.flow.stubs import is_stub
from umbel.core.message import is_text

__all__ = ["Doomed", "Membership", "doomed"]


#: Members that one stub can stand for; a larger number was not written here.
_MOST = 10_000_000


@dataclass(frozen=True, slots=True)
class Membership:
    """The place of a task in the header of a chord that is open."""

    group: str
    #: None where a producer did not say.
    index: int | None
    task_id: str
    #: The body that waits, as it stands in the signature.
    chord: dict[str, Any]


class Doomed(NamedTuple):
    """What a failure takes with it."""

    #: Tasks that will never run, in the order in which they would have begun.
    ids: tuple[str, ...]
    #: Headers that must hear that these members failed.
    memberships: tuple[Membership, ...]
    #: Stubs among them, whose own ids are among `ids`: what else they stand for is in their pieces.
    stubs: tuple[dict[str, Any], ...]


def doomed(sigs: Iterable[Sig]) -> Doomed:
    """Return what the end of frozen signatures that will not run takes with it.

    `sigs` are steps in the order in which they would have run (an embedded chain travels reversed), or a chord's body.
    Chords inside them are not open yet, so only those around them are memberships.
    """
    ids: dict[str, None] = {}
    memberships: list[Membership] = []
    stubs: list[dict[str, Any]] = []
    waiting: list[Any] = list(sigs)
    waiting.reverse()
    within: set[str] = set()
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHAIN or kind is Kind.GROUP:
            waiting.extend(reversed(list_of(tasks_of(one))))
        elif kind is Kind.CHORD:
            group, body = header_group(one), body_of(one)
            within.add(group["options"].get("task_id") or "")
            waiting.extend([*([body] if body is not None else []), group])
        else:
            # What follows the body of a chord travels in its options, reversed.
            waiting.extend(list_of(one["options"].get("chain")))
            _take(one, ids, memberships, stubs)
    return Doomed(tuple(ids), tuple(each for each in memberships if each.group not in within), tuple(stubs))


def _take(sig: Sig, ids: dict[str, None], memberships: list[Membership], stubs: list[dict[str, Any]]) -> None:
    options = sig["options"]
    task_id = options.get("task_id")
    if is_stub(sig):
        stubs.append(dict(sig))
    if not task_id:
        return
    ids[task_id] = None
    chord, group = options.get("chord"), options.get("group_id")
    if chord and isinstance(group, str) and group and is_text(group):
        memberships += [Membership(group, index, task_id, dict(chord)) for index in _places(sig)]


def _places(sig: Sig) -> Iterable[int | None]:
    """Return the indices of what a signature ends in: a stub may stand for several leaves, which follow each other."""
    first = sig["options"].get("group_index")
    count = sig.get("leaves", 1)
    if type(first) is not int or type(count) is not int or not 1 < count <= _MOST:
        return (first,)
    return range(first, first + count)
