"""umbel's own tasks of workflows: they join chords, go on with stored pieces, and end what will never run.

They run in executors like all tasks, late acknowledged, and each may run twice without harm: what they send has ids
that are always the same, and states that are final do not change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from umbel.app import exceptions_io
from umbel.app import request as requests
from umbel.app.canvas.publishing import load
from umbel.app.canvas.underway import read_mark
from umbel.app.flow_queue import derived_id, flow_message
from umbel.app.following import Source, all_doomed, follow, full
from umbel.app.handover import HandedOver
from umbel.app.kept import keep_group, kept_groups
from umbel.app.parts import Ended, content_type_of, decode_part, values_of
from umbel.app.records import record_of
from umbel.app.replacing import renewed
from umbel.app.settlement import call_errbacks, failed_parts
from umbel.app.task import Task
from umbel.app.unsent import ends
from umbel.core import states
from umbel.core.errors import ChordError, OperationalError
from umbel.core.flow.dooming import Doomed
from umbel.core.flow.shape import Kind, Sig, kind_of, list_of, tasks_of
from umbel.core.flow.stubs import FAIL_PIECE
from umbel.core.message import End, Message

__all__ = ["FLOW_TASKS", "FlowTask"]

logger = logging.getLogger("celery.worker")

#: How long one of these tasks waits when broker or store are away (seconds).
_PAUSE = 1.0
#: How long one of another app is left to others before this worker may look at it again (seconds).
_OFFER = 0.2
#: Pauses between looks for the failure of a stub, before the piece fails without it (seconds).
_LOOKS = (0.02, 0.05, 0.1, 0.3, 1.0, 2.0, 0.0)
#: How long after the first sight of a mark it is looked at again (seconds): its producer writes it three times in that.
_SECOND_LOOK = 15.0
#: How long a group that is over is known to be where results do not expire (seconds).
_CLOSED = 86400.0


class FlowTask(Task[Any, Any]):
    """Base: acknowledged late, without limits and results of its own, untouched by annotations."""

    abstract = True
    acks_late = True
    acks_on_failure = True
    acks_on_timeout = False
    reject_on_worker_lost = True
    retry_on_worker_lost = False
    ignore_result = True
    store_errors_even_if_ignored = False
    track_started = False
    rate_limit = None
    #: None would mean those of the worker.
    time_limit = 0
    soft_time_limit = 0
    expires = None
    trail = False
    typing = False

    def run(self, *args: Any, origin: Any = None) -> None:
        """Do the work, if the message comes from this app; `origin` is its name, a task of it, and when it was sent."""
        if origin and self._is_foreign(*origin):
            due = time.time() + _OFFER
            raise HandedOver("left to workers of the app that sent it", end=End.OFFER, due=due, quiet=True)
        try:
            self.go(*args)
        except OperationalError as exc:
            raise _again(exc) from exc

    def follow_up(self, name: str, args: tuple[Any, ...], task_id: str, countdown: float | None = None) -> Message:
        """Return the message of another of these tasks, for workers of the app that this one is for."""
        known = (self.request.kwargs.get("origin") or (None, ""))[1]
        return flow_message(self.app, name, args, task_id=task_id, known=known, countdown=countdown)

    def go(self, *args: Any) -> None:
        """Do the work."""
        raise TypeError(f"{self.name} has no body: define go()")

    def _is_foreign(self, main: str | None, known: str, sent: float) -> bool:
        """Tell whether another app has sent it, whose workers share the queue: their routes and store may be others."""
        app = self.app
        if (main is not None and main == app.main) or not known or known in app.tasks:
            return False
        return bool(time.time() - sent < app.conf.worker_unknown_task_wait)

    def abandon(self, request: requests.Context) -> HandedOver:
        """Say what follows where this task cannot be run, since its process died of it again and again."""
        return HandedOver("given up")


def _again(exc: OperationalError) -> HandedOver:
    """Put the message back for a moment: broker or store cannot be used now."""
    return HandedOver(f"put off: {exc}", end=End.REQUEUE, due=time.time() + _PAUSE, quiet=True)


# --- chords -----------------------------------------------------------------------------------------------


class Join(FlowTask):
    """The header of a chord is complete: sends the body with the values, or ends it with the first failure."""

    name = "umbel.join"

    def go(self, group: str, chord: dict[str, Any]) -> None:
        """Read the parts of `group` and go on with `chord`, the signature of the body or the stub of it."""
        raise self._join(group, chord, errbacks=True)

    def abandon(self, request: requests.Context) -> HandedOver:
        """End the body without its errbacks, one of which is probably what ends processes."""
        group, chord = request.args
        return _fail_body(self, group, chord, ChordError("Callback error: joining the header failed"), errbacks=False)

    def _join(self, group: str, chord: dict[str, Any], *, errbacks: bool) -> HandedOver:
        payloads = self.app.store.joined([group]).get(group) or _kept_payloads(self.app, group)
        if payloads is None:
            return HandedOver("the group has been joined", quiet=True)
        try:
            ended = [decode_part(self.app.conf, payload) for payload in payloads]
            failed = next((one for one in ended if one.state in states.PROPAGATE_STATES), None)
            if failed is None and self._was_sent(chord):
                return HandedOver("the body has run", [self._forget(group)], quiet=True)
            if failed is None:
                values = self._values(group, ended)
                return self._send(group, chord, values, ended[-1].id if ended else None)
            error = ChordError(f"Dependency {failed.id} raised {failed.value!r}")
        except OperationalError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the body is how it ends
            error = ChordError(f"Callback error: {exc!r}")
        return _fail_body(self, group, chord, error, errbacks=errbacks)

    def _values(self, group: str, ended: list[Ended]) -> list[Any]:
        """Return the values in the shape of the header, which stays no longer than results do from now on."""
        store, now = self.app.store, time.time()
        shape = store.saved_group(group, now)
        if shape is not None:
            store.save_group(group, shape, now, _until(self.app, now))
        return values_of(ended, shape)

    def _was_sent(self, chord: Mapping[str, Any]) -> bool:
        """Tell whether this message, which has been delivered before, has done its work and the body has ended."""
        body = (chord.get("options") or {}).get("task_id")
        job = self.request._job
        if job is None or job.token < 2 or not body:
            return False
        record = self.app.store.get([body], time.time()).get(body)
        return record is not None and record.state in states.READY_STATES

    def _send(self, group: str, chord: dict[str, Any], values: list[Any], last: str | None) -> HandedOver:
        root = self.request.root_id
        source = Source(self.app, group, root_id=root, parent_id=last)
        # What is sent from here comes from the header's last member, not from this task.
        info = self.request.delivery_info
        parent = requests.Context(id=last, root_id=root, called_directly=False, delivery_info=info)
        token = requests.push(self, parent)
        try:
            sent = follow(source, full(chord), (values,), "body")
        finally:
            requests.pop(token)
        return HandedOver("joined", [*sent.messages, self._forget(group)], quiet=True)

    def _forget(self, group: str) -> Message:
        return self.follow_up(Forget.name, ([group],), derived_id(group, 0, "forget"))


class Forget(FlowTask):
    """The body of a chord is sent: its parts can go."""

    name = "umbel.forget"

    def go(self, groups: list[str]) -> None:
        """Close the groups; late repeats of members find them closed until results expire."""
        self.app.store.forget_groups(groups, _until(self.app, time.time()))
        raise HandedOver("forgotten", quiet=True)


def _until(app: Any, now: float) -> float:
    """Return until when a group stays closed: long enough for the repeats of its members, even if results never go."""
    return now + (app.conf.result_expires or _CLOSED)


def _fail_body(
    task: FlowTask, group: str, chord: Mapping[str, Any], error: ChordError, *, errbacks: bool
) -> HandedOver:
    """End the body of a chord whose header has failed, and all that follows it."""
    found = all_doomed(task.app, [full(chord)])
    _close(task.app, group, found, time.time())
    return _end(task, group, chord, error, found, errbacks=errbacks)


def _end(
    task: FlowTask, group: str, chord: Mapping[str, Any], error: BaseException, found: Doomed, *, errbacks: bool
) -> HandedOver:
    """Store the failure of all that was found, call the errbacks of the body, and tell the chords around it."""
    app, request = task.app, task.request
    _store_failures(app, found.ids, error, None, time.time())
    publish = []
    if errbacks:
        for one in _failing(app, full(chord)):
            options = one.get("options") or {}
            links = list_of(options.get("link_error"))
            if not links:
                continue
            task_id = options.get("task_id") or group
            asked = requests.Context(
                {**one, "id": task_id, "errbacks": links, "delivery_info": {}, "root_id": request.root_id}
            )
            source = Source(app, task_id, root_id=request.root_id or task_id, parent_id=task_id)
            publish += call_errbacks(source, asked, error, None)
    parts = failed_parts(app, found.memberships, error, content_type_of(request))
    return HandedOver("the chord failed", publish, parts, quiet=True)


def _close(app: Any, group: str, found: Doomed, now: float) -> None:
    """Keep the parts of a header for `retry_failed`, and close it before anybody can ask for that."""
    payloads = app.store.joined([group]).get(group)
    if payloads is not None:
        keep_group(app, group, payloads, found)
        app.store.forget_groups([group], _until(app, now))


def _kept_payloads(app: Any, group: str) -> tuple[bytes, ...] | None:
    """Return the payloads of a header that was closed by a run of this task which was cut off then."""
    kept = kept_groups(app, [group]).get(group)
    return None if kept is None else kept.payloads


def _failing(app: Any, chord: Sig) -> Iterable[Sig]:
    """Give the tasks of a body that would have begun: their errbacks are called."""
    kind = kind_of(chord)
    if chord["task"] == "umbel.resume":
        chord, _ = load(app, chord)
        kind = kind_of(chord)
    if kind is Kind.GROUP:
        for member in tasks_of(chord):
            yield from _failing(app, full(member))
    elif kind is Kind.CHAIN:
        yield from [full(step) for step in list_of(tasks_of(chord))[:1]]
    else:
        yield chord


# --- what will never run ----------------------------------------------------------------------------------


class Fail(FlowTask):
    """A task has failed: gives the failure to the steps that were to follow it."""

    name = "umbel.fail"

    def go(self, steps: list[dict[str, Any]], error: Any, details: dict[str, Any]) -> None:
        """Store the failure of all steps; `details` has a request whose errbacks are to be called too."""
        exc = exceptions_io.from_dict(error) if error is not None else None
        publish = []
        _mark(self.app, steps, exc, details)
        asked = details.get("request")
        if asked:
            source = Source(self.app, asked["id"], root_id=asked["root_id"] or asked["id"], parent_id=asked["id"])
            context = requests.Context({**asked, "delivery_info": {}})
            publish = call_errbacks(source, context, exc, details.get("traceback"))
        raise HandedOver("failed", publish, quiet=True)

    def abandon(self, request: requests.Context) -> HandedOver:
        """Store the failures; errbacks are left out."""
        steps, error, details = request.args
        exc = exceptions_io.from_dict(error) if error is not None else None
        _mark(self.app, steps, exc, details)
        return HandedOver("failed")


def _mark(app: Any, steps: list[dict[str, Any]], exc: Exception | None, details: Mapping[str, Any]) -> None:
    found = all_doomed(app, [full(step) for step in steps])
    _store_failures(app, found.ids, exc, details.get("traceback"), time.time(), details.get("reply_to") or "")


def _store_failures(
    app: Any, ids: Iterable[str], exc: BaseException | None, traceback: str | None, now: float, reply_to: str = ""
) -> None:
    if app.store is None:
        return
    records = [record_of(app, one, states.FAILURE, exc, now=now, traceback=traceback, reply_to=reply_to) for one in ids]
    for start in range(0, len(records), 1000):
        app.store.put(records[start : start + 1000], now)


# --- pieces -----------------------------------------------------------------------------------------------


class Resume(FlowTask):
    """What a stub is to workers that do not know stubs: goes on with the piece that the store keeps."""

    name = "umbel.resume"
    #: A piece that is gone is a failure that somebody waits for.
    ignore_result = False

    def go(self, *given: Any) -> None:
        """Send the piece named by the last argument with the values before it."""
        *values, key = given
        request = self.request
        stub = {**_STUB, "args": [key]}
        source = Source(
            self.app,
            request.id,
            request._job.generation if request._job is not None else 0,
            (request.replaced_task_nesting or 0) + 1,
            request.root_id,
            request.parent_id,
        )
        token = requests.push(self, requests.Context(id=request.parent_id, root_id=request.root_id))
        try:
            sent = follow(source, stub, tuple(values), "resume", list(request.chain or ()))
        finally:
            requests.pop(token)
        raise HandedOver("resumed", renewed(sent.messages, request), quiet=True)


_STUB: dict[str, Any] = {
    "task": "umbel.resume",
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


class FailPiece(FlowTask):
    """A Celery worker has failed the body of a chord that it knows by its stub: ends what the stub stands for."""

    name = FAIL_PIECE

    def run(self, task_id: str, key: str, *, origin: Any = None) -> None:  # type: ignore[override]
        """Do the work; one that takes two arguments is called as a task."""
        super().run(task_id, key, origin=origin)

    def go(self, *args: Any) -> None:
        """Give the failure that is stored under the stub's id to all tasks of the piece, and to those who wait."""
        task_id, key = args
        error = self._error(task_id)
        piece, following = load(self.app, {**_STUB, "args": [key]})
        found = all_doomed(self.app, [piece, *([] if following is None else [following])])
        raise _end(self, task_id, piece, error, found, errbacks=True)

    def _error(self, task_id: str) -> BaseException:
        for pause in _LOOKS:
            failed = self.app.AsyncResult(task_id)
            if failed.state in states.PROPAGATE_STATES and isinstance(failed.result, BaseException):
                return failed.result
            # Celery calls errbacks just before it stores the failure.
            time.sleep(pause)
        return ChordError("the header of the chord failed")


# --- what was never sent ----------------------------------------------------------------------------------


class Unsent(FlowTask):
    """The producer of a workflow has not said for a while that it still sends it: ends what it left open."""

    name = "umbel.unsent"

    def go(self, name: str, seen: float | None = None) -> None:
        """End the headers that the mark `name` speaks of, if it is still as it was when it was `seen`.

        Clocks differ: one that is written again after its first sight is that of a producer which is alive.
        """
        payloads = self.app.store.joined([name]).get(name)
        if not payloads:
            raise HandedOver("all was sent", quiet=True)
        mark = read_mark(payloads[0])
        if seen is None and not mark.error:
            task_id = derived_id(name, 0, f"unsent again/{mark.at}")
            again = self.follow_up(self.name, (name, mark.at), task_id, _SECOND_LOOK)
            raise HandedOver("looked at again later", [again], quiet=True)
        if mark.at != seen and not mark.error:
            raise HandedOver("it is still being sent", quiet=True)
        parts = ends(self.app, mark)
        task_id = derived_id(name, 0, f"unsent forget/{mark.at}")
        forget = self.follow_up(Forget.name, ([name],), task_id)
        raise HandedOver("the chord was not sent", [forget], parts, quiet=True)


FLOW_TASKS: tuple[type[FlowTask], ...] = (Join, Forget, Fail, Resume, FailPiece, Unsent)
