"""What a running task can do about its own place: hand it to other tasks, or let more tasks into its chord."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from umbel.app import request as requests
from umbel.app.canvas.publishing import tried
from umbel.app.canvas.underway import LeftOpen, Underway
from umbel.app.following import Source, follow_frozen
from umbel.app.handover import HandedOver
from umbel.app.parts import join_message, place_of
from umbel.app.signature import maybe_signature
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.flow.combining import steps, with_links
from umbel.core.flow.freezing import freeze
from umbel.core.flow.shape import Kind, Sig, chain_of, is_empty, kind_of, leaves, list_of, merged, with_tail
from umbel.core.message import Message

__all__ = ["add_to_chord", "renewed", "replace_task", "send_replacement", "source_of_request"]


def replace_task(task: Any, sig: Any) -> Any:
    """Let `sig` take the place of the running call: what `Task.replace` does.

    Its last task runs under the id of the call, with its callbacks and errbacks, its place in group and chord, and the
    rest of its chain. Raises ImproperlyConfigured for an empty chain or a signature with a chord of its own.
    """
    request = task.request
    if "chord" in sig.get("options", ()):
        raise ImproperlyConfigured("a signature that replaces a task must not be part of a chord of its own")
    if kind_of(sig) is Kind.CHAIN and is_empty(sig):
        raise ImproperlyConfigured("a task cannot be replaced with an empty chain")
    if _runs_here(request):
        # The call's own links and chain run here once it has returned.
        return task.on_replace(maybe_signature(_uplifted(sig), app=task.app))
    source = _replacing(task.app, request)
    whole = _uplifted(sig)
    if request.callbacks:
        whole = with_links(whole, request.callbacks)
    if request.errbacks:
        whole = _with_errbacks(whole, request.errbacks)
    whole = _placed(freeze(_named(whole, request.id), source.ids_at("replace")), request, source.nesting)
    if request.chain:
        whole = chain_of([*_steps_of(whole), *reversed(request.chain)])
    return task.on_replace(maybe_signature(whole, app=task.app))


def send_replacement(task: Any, sig: Any) -> Any:
    """Send what replaces the running call, with its end; a call that runs here gets its value (`Task.on_replace`)."""
    request = task.request
    if _runs_here(request):
        return sig.apply().get()
    source = _replacing(task.app, request)
    sent = follow_frozen(source, sig, (), "replace")
    raise HandedOver("replaced by new task", renewed(sent, request))


def _runs_here(request: requests.Context) -> bool:
    """Tell whether there is no message that others could go on with: an eager call, or one of the plain function."""
    return bool(request.is_eager or request.called_directly)


def _replacing(app: Any, request: requests.Context) -> Source:
    source = source_of_request(app, request)
    return source._replace(nesting=source.nesting + 1, parent_id=request.parent_id or request.id)


def source_of_request(app: Any, request: requests.Context) -> Source:
    """Return what messages that a running call sends have in common."""
    job = request._job
    return Source(
        app,
        request.id,
        job.generation if job is not None else 0,
        request.replaced_task_nesting or 0,
        request.root_id or request.id,
        request.id,
        reply_to=request.reply_to,
    )


def _uplifted(sig: Sig) -> Sig:
    """Return a workflow that ends in one task: the first value of a group stands for it (Celery: the same)."""
    if kind_of(steps(sig)[-1]) not in (Kind.GROUP, Kind.CHUNKS):
        return sig
    first = {
        "task": "celery.accumulate",
        "args": (),
        "kwargs": {"index": 0},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    return chain_of([sig, first])


def _with_errbacks(sig: Sig, errbacks: Any) -> Sig:
    """Return a copy whose every task calls the errbacks."""
    options = sig["options"]
    return {**sig, "options": {**options, "link_error": merged(list_of(options.get("link_error")), list_of(errbacks))}}


def _named(sig: Sig, task_id: str) -> Sig:
    """Return a copy whose last task has an id, whatever it had."""
    return with_tail(chain_of(steps(sig)), lambda leaf: {**leaf, "options": {**leaf["options"], "task_id": task_id}})


def _placed(sig: Sig, request: requests.Context, nesting: int) -> dict[str, Any]:
    """Return a frozen copy whose last task has the place of the call in its group and chord."""
    place = {"chord": request.chord, "group_id": request.group, "group_index": request.group_index}
    options = {name: value for name, value in place.items() if value is not None}
    options["replaced_task_nesting"] = nesting
    return with_tail(sig, lambda leaf: {**leaf, "options": {**leaf["options"], **options}})


def _steps_of(sig: Sig) -> list[Any]:
    return list_of(sig["kwargs"]["tasks"]) if kind_of(sig) is Kind.CHAIN else [sig]


def renewed(messages: list[Message], request: requests.Context) -> list[Message]:
    """Return messages with those under the id of the running call told apart from its own message."""
    generation = request._job.generation + 1 if request._job is not None else 1
    for message in messages:
        if message.id == request.id:
            message.generation = max(message.generation, generation)
    return messages


# --- more members of a chord ------------------------------------------------------------------------------


def add_to_chord(task: Any, sig: Any, *, lazy: bool) -> Any:
    """Let `sig` into the header of the chord that the running call is a member of: what `Task.add_to_chord` does.

    It is sent at once, or returned to be sent with `lazy`. Done again by a run that repeats, it is the same member.
    """
    request = task.request
    waiting = place_of(request)
    if waiting is None:
        raise ValueError("the running task is not a member of any chord")
    app = task.app
    if app.store is None:
        raise NotSupportedError("a chord needs a place for the results of its header: set result_backend")
    count = request.get("added_to_chord", 0)
    request.update(added_to_chord=count + 1)
    source = source_of_request(app, request)
    position = f"chord:{count}"
    frozen = freeze(sig, source.ids_at(position))
    members = list(leaves(frozen))
    key = f"{request.id}/{position}"

    def let_in() -> Any:
        places = itertools.count(tried(lambda: app.store.grow(request.group, len(members), time.time(), key)))

        def join(leaf: Sig) -> Mapping[str, Any]:
            place = {"chord": request.chord, "group_id": request.group, "group_index": next(places)}
            return {**leaf, "options": {**leaf["options"], **place, "root_id": source.root_id}}

        return maybe_signature(with_tail(frozen, join), app=app)

    if lazy:
        return let_in()
    left = LeftOpen(request.group, join_message(app, waiting), 0, None, len(members), key)
    with Underway(app, key, [left], len(members), request.task or "") as mark:
        mark.begin()
        added = let_in()
        app.client.send(follow_frozen(source, added, (), position))
    result = added.freeze()
    task.add_trail(result)
    return result
