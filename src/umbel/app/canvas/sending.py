"""Send a workflow from a program: its first messages in chunks, read from generators as they are made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from umbel.app.calling import add_to_trail
from umbel.app.canvas.bulk import build_many
from umbel.app.canvas.progress import Progress
from umbel.app.canvas.publishing import keep, keeps_plans, small, tried
from umbel.app.canvas.results import Collected, results_of
from umbel.app.ids import new_id
from umbel.app.publish_signals import announce_sent
from umbel.core.errors import NotSupportedError
from umbel.core.flow.freezing import freeze
from umbel.core.flow.shape import Kind, Sig, body_of, header_group, kind_of, list_of, tasks_of
from umbel.core.flow.starting import Call, Opened, start

__all__ = ["ChordNotSupported", "send"]

#: Messages in one step of the broker.
CHUNK = 1000
#: Options of the whole that its first messages get as they are.
_HANDED = ("root_id", "parent_id", "chain")


class ChordNotSupported(NotSupportedError, NotImplementedError):
    """A chord needs a place for the results of its header (Celery raises NotImplementedError)."""


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
    frozen = freeze(sig, new_id, stream=True)
    if kind_of(frozen) is Kind.CHAIN and not list_of(tasks_of(frozen)):
        return None
    chords = _has_chord(frozen)
    if chords:
        check_chords(app)
    frozen, collected = _recorded(app, frozen)
    shrunk, pieces = small(app, frozen, new_id)
    feed: Iterable[Call | Opened] = start(shrunk, args, kwargs, handed)
    if chords and collected is None:
        # A header whose members are known is announced first, so that nothing of it can be missed.
        feed = _announced(app, list(feed), pieces)
    sent = _Sending(app, pieces, Progress(_length(frozen), progress))
    sent.run(feed)
    result = results_of(app, frozen) if collected is None else _result_of_stream(app, frozen, collected)
    add_to_trail(result, {"add_to_parent": add_to_parent})
    return result


def check_chords(app: Any) -> None:
    """Raise where a chord could never complete."""
    if not keeps_plans(app):
        raise ChordNotSupported(
            "a chord needs a store that keeps the results of its header, and results that travel as messages (rpc://) "
            "or go nowhere (disabled) are not kept: set result_backend to a Redis or SQLite URL"
        )


def _announced(app: Any, found: list[Call | Opened], pieces: dict[str, bytes]) -> Iterator[Call]:
    sizes = {one.group: one.size for one in found if isinstance(one, Opened)}
    keep(app, pieces)
    if sizes:
        tried(lambda: app.store.expect(sizes, time.time()))
    return (one for one in found if isinstance(one, Call))


class _Sending:
    """One workflow on its way to the broker."""

    def __init__(self, app: Any, pieces: dict[str, bytes], progress: Progress) -> None:
        self._app = app
        self._pieces = pieces
        self._progress = progress

    def run(self, feed: Iterable[Call | Opened]) -> None:
        """Send calls, a thousand in a step; tell the store the sizes of headers once they are known."""
        rest = iter(feed)
        opened: dict[str, int] = {}
        with self._progress:
            while chunk := list(islice(rest, CHUNK)):
                calls = [one for one in chunk if isinstance(one, Call)]
                opened.update({one.group: one.size for one in chunk if isinstance(one, Opened)})
                keep(self._app, self._pieces)
                self._publish(calls)
                self._progress.add(len(calls))
            self._expect(opened)

    def _publish(self, calls: list[Call]) -> None:
        if not calls:
            return
        built = build_many(self._app, calls)
        options = calls[0].options
        self._app.client.send(
            [message for message, _ in built], retry=options.get("retry"), policy=options.get("retry_policy")
        )
        for message, told in built:
            if told is not None:
                announce_sent(message, told)

    def _expect(self, sizes: dict[str, int]) -> None:
        if not sizes:
            return
        joined = tried(lambda: self._app.store.expect(sizes, time.time()))
        bodies = [one.body for one in joined if one.body is not None]
        if bodies:
            self._app.client.send(bodies)
            tried(lambda: self._app.store.confirm([one.group for one in joined]))


# --- results ----------------------------------------------------------------------------------------------


def _recorded(app: Any, frozen: dict[str, Any]) -> tuple[dict[str, Any], Collected | None]:
    """Return a workflow that notes the results of its members as its generator is read; None where it has no such."""
    chord = kind_of(frozen) is Kind.CHORD
    group = header_group(frozen) if chord else frozen
    if kind_of(group) is not Kind.GROUP or not isinstance(tasks_of(group), Iterator):
        return frozen, None
    collected = Collected(app)
    group = {**group, "kwargs": {**group["kwargs"], "tasks": collected.seen(tasks_of(group))}}
    return {**frozen, "kwargs": {**frozen["kwargs"], "header": group}} if chord else group, collected


def _result_of_stream(app: Any, frozen: Sig, collected: Collected) -> Any:
    if kind_of(frozen) is not Kind.CHORD:
        return collected.group(frozen["options"]["task_id"])
    group, body = collected.group(header_group(frozen)["options"]["task_id"]), body_of(frozen)
    return group if body is None else results_of(app, body, group)


# --- looks ------------------------------------------------------------------------------------------------


def _has_chord(sig: Sig) -> bool:
    waiting: list[Any] = [sig]
    while waiting:
        one = waiting.pop()
        kind = kind_of(one)
        if kind is Kind.CHORD:
            return True
        if kind in (Kind.CHAIN, Kind.GROUP) and not isinstance(tasks_of(one), Iterator):
            waiting.extend(tasks_of(one))
    return False


def _length(sig: Sig) -> int | None:
    """How many messages are sent, where that is known and simple."""
    group = header_group(sig) if kind_of(sig) is Kind.CHORD else sig
    tasks = tasks_of(group) if kind_of(group) is Kind.GROUP else ()
    return None if isinstance(tasks, Iterator) else len(tasks)
