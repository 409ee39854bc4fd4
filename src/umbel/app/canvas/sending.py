"""Send a workflow from a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel.app.calling import add_to_trail
from umbel.app.canvas.progress import Progress
from umbel.app.canvas.publishing import keep_shapes, name_asker, small
from umbel.app.canvas.results import results_of
from umbel.app.canvas.sender import Sender, check_chords, has_chord
from umbel.app.canvas.streaming import can_stream, stream_chord, stream_group
from umbel.app.ids import new_id
from umbel.core.errors import EncodeError
from umbel.core.flow.combining import steps
from umbel.core.flow.freezing import freeze
from umbel.core.flow.shape import (
    Kind,
    Sig,
    chain_of,
    expand,
    header_group,
    is_empty,
    kind_of,
    list_of,
    tasks_of,
)
from umbel.core.flow.shaping import shapes
from umbel.core.flow.starting import start

__all__ = ["send"]

#: Options of the whole that its first messages get as they are.
_HANDED = ("root_id", "parent_id", "chain")


def send(
    app: Any,
    sig: Sig,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    add_to_parent: bool = True,
    progress: bool | None = None,
) -> Any:
    """Freeze a workflow, send what comes first of it, and return the result of the whole (None for an empty chain)."""
    handed = {name: sig["options"][name] for name in _HANDED if sig["options"].get(name) is not None}
    try:
        found = steps(sig)
        if kind_of(sig) is Kind.CHAIN and (not found or is_empty(sig)):
            return None
        result = _send(app, found, args, kwargs, handed, progress)
    except RecursionError:
        raise EncodeError(
            "the workflow is nested deeper than Python's stack allows: make the innermost parts tasks that send "
            "workflows of their own, or raise sys.setrecursionlimit"
        ) from None
    add_to_trail(result, {"add_to_parent": add_to_parent})
    return result


def _send(
    app: Any,
    found: list[Sig],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    handed: Mapping[str, Any],
    progress: bool | None,
) -> Any:
    if len(found) == 1 and "chain" not in handed:
        (only,) = found
        kind = kind_of(only)
        if kind in (Kind.GROUP, Kind.CHUNKS):
            group = expand(only) if kind is Kind.CHUNKS else only
            return stream_group(app, group, args, kwargs, handed, progress)
    if any(map(has_chord, found)):
        check_chords(app)
    if kind_of(found[0]) is Kind.CHORD and "chain" not in handed and can_stream(found[0]):
        return stream_chord(app, found, args, kwargs, handed, progress)
    frozen = freeze(chain_of(found), new_id)
    name_asker(app, [frozen])
    shrunk, pieces = small(app, frozen, new_id)
    keep_shapes(app, shapes(frozen))
    with Progress(_length(frozen), progress) as shown:
        Sender(app, shown).start(start(shrunk, args, kwargs, handed), pieces)
    return results_of(app, frozen)


def _length(frozen: Sig) -> int | None:
    """How many messages are sent, where that is plain to see."""
    first = list_of(tasks_of(frozen))[0] if kind_of(frozen) is Kind.CHAIN else frozen
    return len(list_of(tasks_of(header_group(first)))) if kind_of(first) is Kind.CHORD else 1
