"""Trees of plain signatures, and a run of them in this process: what a fleet of workers would do, without one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from umbel.core.flow.joining import Group
from umbel.core.flow.starting import Call, Opened, start
from umbel.core.flow.storing import unpack
from umbel.core.flow.stubs import RESUME, is_stub, stub_key


def task(name: str = "t", *args: Any, immutable: bool = False, **options: Any) -> dict[str, Any]:
    """The signature of one task."""
    return _sig(name, None, {}, options, args=args, immutable=immutable)


def chain(*tasks: Any, **options: Any) -> dict[str, Any]:
    """A chain as it is written, not yet flattened."""
    return _sig("celery.chain", "chain", {"tasks": list(tasks)}, options)


def group(*tasks: Any, **options: Any) -> dict[str, Any]:
    """A group as it is written."""
    return _sig("celery.group", "group", {"tasks": list(tasks)}, options)


def chord(header: Any, body: Any, **options: Any) -> dict[str, Any]:
    """A chord as it is written."""
    return _sig("celery.chord", "chord", {"kwargs": {}, "header": header, "body": body}, options)


def _sig(
    name: str,
    kind: str | None,
    kwargs: dict[str, Any],
    options: dict[str, Any],
    args: tuple[Any, ...] = (),
    immutable: bool = False,
) -> dict[str, Any]:
    return {
        "task": name,
        "args": list(args),
        "kwargs": kwargs,
        "options": options,
        "subtask_type": kind,
        "immutable": immutable,
    }


def numbers(prefix: str = "id") -> Any:
    """A source of ids: id0, id1 …"""
    places = count()
    return lambda: f"{prefix}{next(places)}"


class Fleet:
    """Runs calls until nothing is left. A task's value is its id, so that arguments tell who ran before.

    With `foreign` stubs are sent as tasks, as workers do that do not know them.
    """

    def __init__(self, pieces: Mapping[str, bytes] | None = None, *, foreign: bool = False) -> None:
        self.pieces = pieces or {}
        self.foreign = foreign
        self.calls: list[Call] = []
        self.groups: dict[str, Group] = {}
        self.bodies: dict[str, Any] = {}
        self.largest = 0
        self.bytes = 0
        self._waiting: deque[Call] = deque()

    def run(self, sig: Any) -> Fleet:
        """Start a frozen signature and run all that follows."""
        self._send(start(sig))
        while self._waiting:
            self._run(self._waiting.popleft())
        return self

    def _send(self, found: Iterator[Call | Opened]) -> None:
        for one in found:
            if isinstance(one, Call):
                self.calls.append(one)
                self._waiting.append(one)
                size = len(json.dumps([one.args, one.kwargs, one.options]))
                self.largest, self.bytes = max(self.largest, size), self.bytes + size
            else:
                self._join(one.group, lambda known, size=one.size: known.expect(size))  # type: ignore[misc]

    def _run(self, call: Call) -> None:
        options = call.options
        if call.task == RESUME:
            self._resume(call)
            return
        for callback in options.get("link") or ():
            self._send(start(callback, (options["task_id"],), options={"task_id": f"link of {options['task_id']}"}))
        rest = list(options.get("chain") or ())
        if rest:
            following = rest.pop()
            self._go_on(following, options["task_id"], rest)
        elif options.get("chord"):
            self.bodies[options["group_id"]] = options["chord"]
            payload = json.dumps(options["task_id"]).encode()
            self._join(options["group_id"], lambda known: known.join(options["group_index"], payload))

    def _join(self, group: str, change: Any) -> None:
        known = self.groups.get(group, Group())
        self.groups[group] = changed = change(known)
        if changed.complete and not known.complete:
            self._go_on(self.bodies[group], [json.loads(each) for each in changed.payloads], [])

    def _resume(self, call: Call) -> None:
        *values, key = call.args
        sig, following = unpack(self.pieces[key])
        rest = list(call.options.get("chain") or ())
        self._send(start(sig, values, call.kwargs, {"chain": rest if following is None else [*rest, following]}))

    def _go_on(self, sig: Any, value: Any, rest: list[Any]) -> None:
        while is_stub(sig) and not self.foreign:
            sig, following = unpack(self.pieces[stub_key(sig)])
            rest = rest if following is None else [*rest, following]
        self._send(start(sig, (value,), options={"chain": rest}))

    def ran(self) -> dict[str, tuple[str, Any, Any]]:
        """What ran, by id: name, arguments, keyword arguments."""
        return {
            call.options["task_id"]: (call.task, list(call.args), call.kwargs)
            for call in self.calls
            if call.task != RESUME
        }
