"""Celery's builtin tasks: messages of its programs name them, and some of umbel's own use them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from umbel.app.following import follow, full
from umbel.app.handover import HandedOver
from umbel.app.replacing import source_of_request
from umbel.app.settlement import fail_message
from umbel.app.task import Task
from umbel.core.errors import ChordError, NotSupportedError
from umbel.core.flow.shape import chain_of, chord_of, expand, group_of
from umbel.core.message import Message

__all__ = ["CELERY_TASKS"]

#: How many expired records one step drops.
_STEP = 1000
#: Pauses before `celery.chord_unlock` looks again: first and last (seconds), and after how long it gives up where
#: results do not expire.
_LOOK_FIRST, _LOOK_LAST, _GIVEN_UP = 10.0, 3600.0, 86400.0


class _Builtin(Task[Any, Any]):
    """Base of these tasks."""

    abstract = True
    typing = False

    def _send(self, sig: Mapping[str, Any], values: Iterable[Any] = (), position: str = "sent") -> Any:
        """Send a workflow now, with ids that a repeated run gives again; return its result tuple."""
        source = source_of_request(self.app, self.request)
        sent = follow(source, full(sig), tuple(values), position)
        self.app.client.send(sent.messages)
        return sent.child


class Accumulate(_Builtin):
    """Returns what it is given: the values of a group as one result."""

    name = "celery.accumulate"

    def run(self, *args: Any, index: int | None = None, **_: Any) -> Any:
        """Return the arguments as a list, or that at `index`."""
        return list(args) if index is None else args[index]


class BackendCleanup(_Builtin):
    """Drops expired results now; workers do that by themselves every minute."""

    name = "celery.backend_cleanup"

    def run(self) -> None:
        """Drop what has expired."""
        store = self.app.store
        while store is not None and store.expire(time.time(), _STEP) == _STEP:
            continue


class Map(_Builtin):
    """Calls a task for each item, one after the other (`Task.map`)."""

    name = "celery.map"

    def run(self, task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
        """Return the values in order."""
        called = self.app.tasks[task["task"]]
        return [called(item) for item in it]


class Starmap(_Builtin):
    """Calls a task with each tuple of arguments, one after the other (`Task.starmap`)."""

    name = "celery.starmap"

    def run(self, task: Mapping[str, Any], it: Iterable[Sequence[Any]]) -> list[Any]:
        """Return the values in order."""
        called = self.app.tasks[task["task"]]
        return [called(*item) for item in it]


class Chunks(_Builtin):
    """Sends the parts of `Task.chunks`."""

    name = "celery.chunks"

    def run(self, task: Mapping[str, Any], it: Iterable[Any], n: int) -> Any:
        """Send a `celery.starmap` for every `n` items; return the result tuple of the group."""
        kwargs = {"task": task, "it": list(it), "n": n}
        group = expand(full({"task": self.name, "kwargs": kwargs, "subtask_type": "chunks"}))
        return self._send({**group, "kwargs": {"tasks": list(group["kwargs"]["tasks"])}})


class Group(_Builtin):
    """Sends the members of a group."""

    name = "celery.group"

    def run(
        self,
        tasks: Sequence[Mapping[str, Any]],
        result: Any = None,
        group_id: str | None = None,
        partial_args: Sequence[Any] = (),
        add_to_parent: bool = True,
        **_: Any,
    ) -> Any:
        """Send the tasks with `partial_args` in front of their arguments; return the group's result tuple."""
        del add_to_parent
        options = {"task_id": group_id} if group_id else {}
        child = self._send(group_of([full(task) for task in tasks], options), partial_args)
        return result if result is not None else child


class Chain(_Builtin):
    """Sends the first step of a chain. Celery's own refuses to run."""

    name = "celery.chain"

    def run(self, *args: Any, tasks: Sequence[Mapping[str, Any]] = (), **_: Any) -> Any:
        """Send the chain; return its result tuple."""
        return self._send(chain_of([full(task) for task in tasks]), args)


class Chord(_Builtin):
    """Sends the header of a chord."""

    name = "celery.chord"
    ignore_result = False

    def run(self, header: Any, body: Mapping[str, Any], partial_args: Sequence[Any] = (), **_: Any) -> Any:
        """Send the header with `partial_args` in front of the arguments; return the body's result tuple."""
        group = full(header) if isinstance(header, Mapping) else group_of([full(task) for task in header], {})
        return self._send(chord_of(group, full(body)), partial_args)


class ChordUnlock(_Builtin):
    """What programs send whose result store does not count for them: asks again and again in Celery's workers.

    Here it says how many members there are: the parts that umbel's workers store do the rest. It comes back now and
    then, ever more rarely, to end a chord whose members have ended where no umbel worker could hear of it.
    """

    name = "celery.chord_unlock"
    acks_late = True
    ignore_result = True
    max_retries = None

    def run(self, group_id: str, callback: Mapping[str, Any], *_: Any, result: Any = None, **__: Any) -> None:
        """Tell the store how many members the group has; send the join if they have all ended."""
        store, now = self.app.store, time.time()
        if store is None:
            raise NotSupportedError("a chord needs a place for the results of its header: set result_backend")
        size = sum(1 for _id in _leaves(result or ()))
        complete = store.expect({group_id: size}, now)
        bodies = [joined.body for joined in complete if joined.body is not None]
        body_id = (callback.get("options") or {}).get("task_id")
        if bodies or not body_id or body_id in store.get([body_id], now) or store.joined([group_id]):
            raise HandedOver("the size is known", bodies)
        raise HandedOver("the size is known", [self._later(full(callback))])

    def _later(self, callback: dict[str, Any]) -> Message:
        """Return this message for a later time; beyond that, the message that ends the body."""
        retries = self.request.retries
        pauses = (min(_LOOK_FIRST * 2.0**number, _LOOK_LAST) for number in range(retries + 1))
        if sum(pauses) < (self.app.conf.result_expires or _GIVEN_UP):
            pause = min(_LOOK_FIRST * 2.0**retries, _LOOK_LAST)
            again: Message = self.retry(countdown=pause, max_retries=None, throw=False).sig
            return again
        error = ChordError("the ends of some members did not reach the result store of umbel's workers")
        return fail_message(source_of_request(self.app, self.request), [callback], error, request=self.request)


def _leaves(results: Iterable[Any]) -> Iterator[str]:
    """Give the ids of the single results in result tuples."""
    for item in results:
        (task_id, _parent), members = item if isinstance(item[0], (list, tuple)) else (item, None)
        if members is None:
            yield task_id
        else:
            yield from _leaves(members)


CELERY_TASKS: tuple[type[_Builtin], ...] = (
    Accumulate, BackendCleanup, Chain, Chord, ChordUnlock, Chunks, Group, Map, Starmap,
)  # fmt: skip
