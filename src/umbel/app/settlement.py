"""What an outcome makes happen: the state to store, the messages that follow, and how the lease ends."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from umbel.app.records import record_of
from umbel.app.running import Call
from umbel.core import states
from umbel.core.errors import NotSupportedError
from umbel.core.message import End, Message, Record
from umbel.core.outcome import Kind, Outcome, decide, stored_state

__all__ = ["Settled", "derived_id", "settle_outcome"]

logger = logging.getLogger("celery.worker")
_NAMESPACE = uuid.UUID("5b3f1f7c-6d0e-5c52-9a51-0d7d8a1c7e9b")


class Settled(NamedTuple):
    """The effects of one outcome, as `Settlement` takes them."""

    end: End
    record: Record | None
    publish: list[Message]
    due: float = 0.0
    reason: str = ""


def derived_id(task_id: str, generation: int, position: str) -> str:
    """Return the id of a message that follows from a run: the same whenever the run is repeated."""
    return str(uuid.uuid5(_NAMESPACE, f"{task_id}:{generation}:{position}"))


def settle_outcome(call: Call, outcome: Outcome, crashes: int = 0) -> Settled:
    """Return the effects of an outcome.

    Raises EncodeError or BackendStoreError when a successful value cannot be stored, and what building a
    callback raises; the caller turns that into a failure, whose effects can always be made.
    """
    request = call.request
    values = request._values
    if outcome.kind is Kind.SUCCESS and not (values["callbacks"] or values["chain"] or values["chord"]):
        # What nearly every call is: nothing follows but its result.
        try:
            ignore = values["ignore_result"]
        except KeyError:
            ignore = request.ignore_result
        state = call.traits.success_state(ignore)
        if state is None or call.app.store is None:
            return Settled(End.DONE, None, [])
        return Settled(End.DONE, _record(call, state, outcome), [])
    policy = call.traits.policy(request.ignore_result)
    effects = decide(outcome.kind, policy, crashes)
    publish: list[Message] = []
    if effects.callbacks:
        if request.chord is not None:
            raise NotSupportedError(
                f"the task {call.traits.name} belongs to a chord, which umbel does not run yet: "
                "let Celery workers consume the queue of chord members"
            )
        if request.callbacks or request.chain:
            publish = _success_messages(call, outcome.value)
    elif outcome.kind is Kind.RETRY:
        publish = [outcome.retry]
    if effects.errbacks and request.errbacks:
        publish = _failure_messages(call, outcome)
    state = stored_state(effects, policy)
    record = None
    if state is not None and call.app.store is not None:
        record = _record(call, state, outcome)
    if effects.errbacks and request.chain:
        _fail_chain(call, outcome)
    reason = _reason(outcome) if effects.end is End.DEAD else ""
    return Settled(effects.end, record, publish, 0.0, reason)


def _record(call: Call, state: str, outcome: Outcome) -> Record:
    request = call.request
    trail = request._values.get("children")
    return record_of(
        call.app,
        call.id,
        state,
        outcome.value if outcome.kind is Kind.SUCCESS else outcome.exc,
        now=call.clock.now(),
        traceback=outcome.traceback,
        children=[child.as_tuple() for child in trail] if trail else None,
        request=request,
    )


def _reason(outcome: Outcome) -> str:
    name = type(outcome.exc).__name__
    if outcome.kind is Kind.LOST:
        return f"lost: {name}: {outcome.exc}"
    return f"{outcome.kind.value}: {name}" if outcome.exc is not None else outcome.kind.value


# --- success: callbacks and the next step of a chain ------------------------------------------------------


class _Child(NamedTuple):
    """A message that follows, as the trail keeps it."""

    id: str

    def as_tuple(self) -> tuple[tuple[str, None], None]:
        return (self.id, None), None


def _success_messages(call: Call, value: Any) -> list[Message]:
    request = call.request
    messages = [
        _follow_up(call, signature, (value,), f"link:{index}", {})
        for index, signature in enumerate(request.callbacks or ())
    ]
    if request.chain:
        rest = list(request.chain)
        following = rest.pop()
        messages.append(_follow_up(call, following, (value,), "chain", {"chain": rest} if rest else {}))
    for message in messages:
        request.add_child(_Child(message.id))
    return messages


def _follow_up(
    call: Call, signature: Mapping[str, Any], partial: tuple[Any, ...], position: str, more: dict[str, Any]
) -> Message:
    """Build the message of one signature with the values that it is given in front of its own arguments."""
    if signature.get("subtask_type") is not None:
        raise NotSupportedError(
            f"a {signature['subtask_type']} follows the task {call.traits.name}, and umbel sends only single "
            "tasks from callbacks and chains yet: link plain task signatures"
        )
    request = call.request
    options = {key: value for key, value in (signature.get("options") or {}).items() if value is not None}
    options.setdefault("task_id", derived_id(call.id, call.job.generation if call.job else 0, position))
    options["root_id"] = request.root_id or call.id
    options["parent_id"] = call.id
    if call.job is not None and call.app.conf.task_inherit_parent_priority:
        options.setdefault("priority", call.job.priority)
    args = tuple(signature.get("args") or ())
    if not signature.get("immutable"):
        args = (*partial, *args)
    name = signature["task"]
    message: Message = call.app.client.build(
        call.app.tasks.get(name, name), args, dict(signature.get("kwargs") or {}), {**options, **more}
    )
    return message


# --- failure: errbacks, and the steps that will never run -------------------------------------------------


def _failure_messages(call: Call, outcome: Outcome) -> list[Message]:
    """Call the errbacks that take (request, exc, traceback) here; return the messages of the others.

    An errback that cannot be called or sent is logged: it must not hide the failure itself.
    """
    messages: list[Message] = []
    for index, signature in enumerate(call.request.errbacks or ()):
        task = call.app.tasks.get(signature["task"])
        try:
            if task is not None and takes_details(task, signature):
                _call_errback(task, signature, call, outcome)
            else:
                messages.append(_follow_up(call, signature, (call.id,), f"errback:{index}", {}))
        except BaseException as exc:
            logger.exception(
                "the errback %s of %s[%s] failed with %s",
                signature["task"],
                call.traits.name,
                call.id,
                type(exc).__name__,
            )
    return messages


def takes_details(task: Any, signature: Mapping[str, Any]) -> bool:
    """Tell whether an errback takes more than the id of the failed task, and so is called in place.

    Celery: an errback with more than one open argument gets (request, exc, traceback).
    """
    given = 0 if signature.get("immutable") else len(signature.get("args") or ())
    positional = 0
    for parameter in inspect.signature(task.run).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        positional += parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return positional - given > 1


def _call_errback(task: Any, signature: Mapping[str, Any], call: Call, outcome: Outcome) -> None:
    details = () if signature.get("immutable") else (call.request, outcome.exc, outcome.traceback)
    task(*details, *(signature.get("args") or ()), **(signature.get("kwargs") or {}))


def _fail_chain(call: Call, outcome: Outcome) -> None:
    """Give every later step of the chain the failure, so that nobody waits for it (Celery: the same).

    Stored directly: a terminal state never changes, so that repeating it does no harm.
    """
    store = call.app.store
    if store is None:
        return
    now = call.clock.now()
    asker = call.request.reply_to or ""
    records = [
        record_of(call.app, step_id, states.FAILURE, outcome.exc, now=now, traceback=outcome.traceback, reply_to=asker)
        for step_id in ((step.get("options") or {}).get("task_id") for step in reversed(call.request.chain or ()))
        if step_id
    ]
    try:
        if records:
            store.put(records, now)
    except Exception as exc:
        logger.exception("cannot store the failure of the steps that follow %s: %s", call.id, type(exc).__name__)
