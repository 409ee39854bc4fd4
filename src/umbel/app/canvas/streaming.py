"""Send the members of a large group or header as they are read: a chunk is sent before the next is made."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from umbel.app.canvas.bulk import PlainMembers, plain_calls, plain_task
from umbel.app.canvas.progress import Progress
from umbel.app.canvas.publishing import keep_shapes, name_asker, small
from umbel.app.canvas.results import Collected, results_of
from umbel.app.canvas.sender import CHUNK, Sender, check_chords, has_chord
from umbel.app.ids import new_id
from umbel.core.flow.combining import handed_down, spread_chord
from umbel.core.flow.freezing import freeze, frozen_members
from umbel.core.flow.shape import (
    Kind,
    Sig,
    chain_of,
    checked_member,
    chord_of,
    group_of,
    kind_of,
    leaves,
    list_of,
    tasks_of,
)
from umbel.core.flow.shaping import ends_in_group, shapes
from umbel.core.flow.starting import Opened, attach, start, waiting_body
from umbel.core.flow.stubs import leaf_count

__all__ = ["can_stream", "stream_chord", "stream_group"]


def can_stream(chord: Sig) -> bool:
    """Tell whether the size of a header needs no look at each member, or cannot be known before the last."""
    tasks = tasks_of(spread_chord(chord)[0])
    return isinstance(tasks, Iterator) or (bool(tasks) and plain_task(list_of(tasks)) is not None)


class _Members:
    """The members of one group on their way; `body` is what waits for them."""

    def __init__(
        self, sender: Sender, group: Sig, args: Sequence[Any], kwargs: Mapping[str, Any], handed: Mapping[str, Any]
    ) -> None:
        self._app = sender.app
        self._sender = sender
        self._group = group
        self._args = args
        self._kwargs = kwargs
        self._handed = handed
        self._options = handed_down(group["options"])
        self.id: str = group["options"].get("task_id") or new_id()
        self.body: Sig | None = None
        self.results = Collected(self._app)
        self.size = 0
        #: A member ends in a group: the values of the header have a shape.
        self._shaped = False
        self._plain: PlainMembers | None = None

    def send(self) -> None:
        """Send all. The size of a header is told before its members if one chunk has them all, else after them."""
        tasks = tasks_of(self._group)
        rest = iter(tasks)
        # A chord that is known as a whole is built as a whole, so that nothing of a wrong one is sent.
        step = CHUNK if self.body is None or isinstance(tasks, Iterator) else sys.maxsize
        chunk = list(islice(rest, step))
        if self.body is None or not chunk:
            self._send_chunks(chunk, rest, step)
        elif more := list(islice(rest, 1)):
            with self._sender.underway(
                [(self.id, None, self.body, None)], next(leaves(chunk[0]))["task"], self._options
            ):
                self._send_chunks(chunk, itertools.chain(more, rest), step)
                self._keep_shape()
                self._sender.expect({self.id: self.size})
        else:
            self._send_chunk(chunk, self.body)

    def _send_chunks(self, chunk: list[Any], rest: Iterator[Any], step: int) -> None:
        while chunk:
            self._send_chunk(chunk)
            chunk = list(islice(rest, step))

    def _send_chunk(self, chunk: list[Any], opens: Sig | None = None) -> None:
        """Send members; `opens` is what waits for a header that has no others."""
        if not self._send_plain(chunk, opens):
            self._send_each(chunk, opens)

    def _send_plain(self, chunk: list[Any], opens: Sig | None) -> bool:
        name = None if self._handed else plain_task(chunk)
        if name is None:
            return False
        if self._plain is None or self._plain.name != name:
            self._plain = PlainMembers(self._app, name, self.id, self.body)
        plan = self._plain.plan(chunk[0], self._options)
        if plan is None:
            return False
        messages = self._plain.messages(plan, plain_calls(chunk, self._args, self._kwargs), self.size)
        size = len(messages)
        self._sender.deliver(messages, [] if opens is None else [(Opened(self.id, size, opens), size)])
        self.results.add_plain(plan, [message.id for message in messages])
        self.size += len(messages)
        return True

    def _send_each(self, chunk: list[Any], opens: Sig | None) -> None:
        group = {**self._group, "kwargs": {"tasks": [checked_member(task) for task in chunk]}}
        places = itertools.count(self.size)
        frozen = list(frozen_members(group, self.id, new_id, header=self.body is not None, places=places))
        name_asker(self._app, frozen)
        self.results.extend(frozen)
        self.size += sum(map(leaf_count, frozen))
        if any(map(has_chord, frozen)):
            check_chords(self._app)
        keep_shapes(self._app, shapes(group_of(frozen, {})))
        self._shaped = self._shaped or any(map(ends_in_group, frozen))
        if opens is not None:
            self._keep_shape()
        if self.body is not None:
            frozen = [attach(member, self.body, self.id) for member in frozen]
        shrunk, pieces = small(self._app, group_of(frozen, {"task_id": self.id}), new_id)
        whole = None if opens is None else Opened(self.id, self.size, opens)
        self._sender.start(start(shrunk, self._args, self._kwargs, self._handed), pieces, whole)

    def _keep_shape(self) -> None:
        if self._shaped and self.body is not None:
            group = self.results.group(self.id)
            members = group.as_tuple()[1] if group.id == self.id else [group.as_tuple()]
            keep_shapes(self._app, {self.id: [[self.id, None], members]})


def stream_group(
    app: Any,
    sig: Sig,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    handed: Mapping[str, Any],
    progress: bool | None,
) -> Any:
    """Send a group; return its result."""
    with Progress(_length(sig), progress) as shown:
        members = _Members(Sender(app, shown), sig, args, kwargs, handed)
        members.send()
    return members.results.group(members.id)


def stream_chord(
    app: Any,
    found: list[Sig],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    handed: Mapping[str, Any],
    progress: bool | None,
) -> Any:
    """Send a chain that begins with a chord whose members are read as they are sent, or are all alike."""
    header, body = spread_chord(found[0])
    given = header["options"].get("task_id")
    # The header without its members, so that only what follows is looked at.
    hollow = freeze(chain_of([chord_of(group_of([], {"task_id": given or new_id()}), body), *found[1:]]), new_id)
    keep_shapes(app, shapes(hollow))
    first, *rest = list_of(tasks_of(hollow)) if kind_of(hollow) is Kind.CHAIN else [hollow]
    group_id = first["options"]["task_id"]
    whole = chain_of([first["kwargs"]["body"], *rest])
    unread = {**first, "kwargs": {**first["kwargs"], "header": group_of(iter(()), {"task_id": group_id})}}
    shrunk, pieces = small(app, chain_of([unread, *rest]), new_id)
    steps = list_of(tasks_of(shrunk)) if kind_of(shrunk) is Kind.CHAIN else [shrunk]
    following = waiting_body([steps[0]["kwargs"]["body"], *steps[1:]])
    with Progress(_length(header), progress) as shown:
        sender = Sender(app, shown)
        sender.keep(pieces)
        members = _Members(
            sender, {**header, "options": {**header["options"], "task_id": group_id}}, args, kwargs, handed
        )
        members.body = following
        members.send()
        if not members.size:
            sender.start(start(following, ([],), {}, handed))
    return results_of(app, whole, members.results.group(group_id))


def _length(group: Sig) -> int | None:
    tasks = tasks_of(group)
    return None if isinstance(tasks, Iterator) else len(tasks)
