"""What an outcome makes happen: the state to store, the messages that follow, what chords hear, how the lease ends."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from umbel.app.flow_queue import flow_message
from umbel.app.following import Source, follow, full
from umbel.app.handover import HandedOver
from umbel.app.kept import keep_task
from umbel.app.parts import Place, content_type_of, part_of, place_of, serializer_of
from umbel.app.records import record_of
from umbel.app.result_bytes import exception_fields
from umbel.app.running import Call
from umbel.core import states
from umbel.core.errors import NotSupportedError
from umbel.core.flow.dooming import Membership, doomed
from umbel.core.flow.late import LateSteps, read_step
from umbel.core.message import End, Message, Part, Record
from umbel.core.outcome import Kind, Outcome, decide, stored_state

__all__ = ["Settled", "call_errbacks", "fail_message", "failed_parts", "settle_outcome", "takes_details"]

logger = logging.getLogger("celery.worker")


class Settled(NamedTuple):
    """The effects of one outcome, as `Settlement` takes them."""

    end: End
    record: Record | None
    publish: list[Message]
    due: float = 0.0
    reason: str = ""
    parts: tuple[Part, ...] = ()


def settle_outcome(call: Call, outcome: Outcome, crashes: int = 0) -> Settled:
    """Return the effects of an outcome.

    Raises EncodeError or BackendStoreError when a successful value cannot be stored, and what building a
    callback raises; the caller turns that into a failure, whose effects can always be made.
    """
    request = call.request
    values = request._values
    if outcome.kind is Kind.SUCCESS and not (values["callbacks"] or values["chord"]):
        # What nearly every call is: nothing follows but its result, or the next step of a chain.
        publish = _success_messages(call, outcome.value) if values["chain"] else []
        try:
            ignore = values["ignore_result"]
        except KeyError:
            ignore = request.ignore_result
        state = call.traits.success_state(ignore)
        if state is None or call.app.store is None:
            return Settled(End.DONE, None, publish)
        return Settled(End.DONE, _record(call, state, outcome), publish)
    if isinstance(outcome.exc, HandedOver):
        taken = outcome.exc
        return Settled(taken.end, taken.record, taken.publish, taken.due, "", tuple(taken.parts))
    return _settle(call, outcome, crashes)


def _settle(call: Call, outcome: Outcome, crashes: int) -> Settled:
    request = call.request
    policy = call.traits.policy(request.ignore_result)
    effects = decide(outcome.kind, policy, crashes)
    publish: list[Message] = []
    parts: list[Part] = []
    if effects.callbacks and (request.callbacks or request._values.get("chain")):
        publish = _success_messages(call, outcome.value)
    elif outcome.kind is Kind.RETRY:
        publish = [outcome.retry]
    elif effects.errbacks and request.errbacks:
        publish = call_errbacks(source_of(call), request, outcome.exc, outcome.traceback)
    if effects.errbacks and request.chain:
        more, parts = _fail_chain(call, outcome)
        publish += more
    if request.chord is not None:
        more, own = _own_part(call, outcome, effects.state)
        publish += more
        parts += own
    state = stored_state(effects, policy)
    if effects.state == states.FAILURE and call.job is not None:
        keep_task(call.app, call.job, request, stateless=state is None)
    record = None
    if state is not None and call.app.store is not None:
        record = _record(call, state, outcome)
    reason = _reason(outcome) if effects.end is End.DEAD else ""
    return Settled(effects.end, record, publish, 0.0, reason, tuple(parts))


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


def source_of(call: Call) -> Source:
    """Return what messages that follow from a call have in common."""
    request, job = call.request, call.job
    inherit = job is not None and call.app.conf.task_inherit_parent_priority
    return Source(
        call.app,
        call.id,
        job.generation if job is not None else 0,
        request.replaced_task_nesting or 0,
        request.root_id or call.id,
        call.id,
        job.priority if inherit else None,
        request.reply_to,
    )


# --- success: callbacks and the next step of a chain ------------------------------------------------------


class _Child:
    """What follows from a task, as its trail keeps it."""

    __slots__ = ("_tuple",)

    def __init__(self, child: Any) -> None:
        self._tuple = child

    @property
    def id(self) -> str:
        """The id under which its result is known."""
        found: str = self._tuple[0][0]
        return found

    def as_tuple(self) -> Any:
        """Return Celery's result tuple."""
        return self._tuple


def _success_messages(call: Call, value: Any) -> list[Message]:
    request, source = call.request, source_of(call)
    publish: list[Message] = []
    children = []
    for index, signature in enumerate(request.callbacks or ()):
        sent = follow(source, signature, (value,), f"link:{index}")
        publish += sent.messages
        children.append(_Child(sent.child))
    # Steps that nobody has looked at are sent on as they came.
    chain = request._values.get("chain")
    if chain:
        *rest, following = chain.steps if type(chain) is LateSteps else chain
        sent = follow(source, read_step(following), (value,), "chain", rest)
        publish += sent.messages
        children.append(_Child(sent.child))
    for child in children:
        request.add_child(child)
    return publish


# --- what a chord hears -----------------------------------------------------------------------------------


def _own_part(call: Call, outcome: Outcome, state: str | None) -> tuple[list[Message], list[Part]]:
    """Return the part of a member that ended; one that goes on (a retry, a requeue) adds nothing yet."""
    if outcome.kind is Kind.IGNORE:
        state, value = states.SUCCESS, None
    elif state == states.SUCCESS:
        value = outcome.value
    elif state in states.PROPAGATE_STATES:
        value = outcome.exc
    else:
        return [], []
    place = place_of(call.request)
    if place is None:
        return [], []
    try:
        return [], [part_of(call.app, place, call.id, str(state), value)]
    except NotSupportedError as exc:
        if state == states.SUCCESS:
            raise
        # The chord cannot be told that this member has ended, so it ends here.
        return [fail_message(source_of(call), [full(place.chord)], exc, request=call.request)], []


def failed_parts(app: Any, members: Sequence[Membership], exc: BaseException | None, content_type: str) -> list[Part]:
    """Return the parts of members that will never run, each for the chord that waits for it."""
    parts = []
    for member in members:
        place = Place(member.group, member.index, member.chord, None, content_type)
        with suppress(NotSupportedError):
            parts.append(part_of(app, place, member.task_id, states.FAILURE, exc))
    return parts


# --- failure: errbacks, and the steps that will never run -------------------------------------------------


def call_errbacks(source: Source, request: Any, exc: BaseException | None, traceback: str | None) -> list[Message]:
    """Call the errbacks that take (request, exc, traceback) here; return the messages of the others.

    An errback that cannot be called or sent is logged: it must not hide the failure itself.
    """
    messages: list[Message] = []
    for index, signature in enumerate(request.errbacks or ()):
        plain = signature.get("subtask_type") is None
        task = source.app.tasks.get(signature["task"]) if plain else None
        try:
            if task is not None and takes_details(task, signature):
                _call_errback(task, signature, (request, exc, traceback))
            else:
                messages += follow(source, signature, (source.id,), f"errback:{index}").messages
        except BaseException as error:
            logger.exception(
                "the errback %s of %s[%s] failed with %s",
                signature["task"],
                request.task,
                source.id,
                type(error).__name__,
            )
    return messages


def takes_details(task: Any, signature: Mapping[str, Any]) -> bool:
    """Tell whether an errback takes more than the id of the failed task, and so is called in place.

    Celery: an errback with more than one open argument gets (request, exc, traceback), but bound tasks and task classes
    get the id. Of these, only such as cannot be called with the id alone, and fail there, get the details here.
    """
    needed = positional = 0
    for parameter in _open_parameters(task.run, signature):
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += 2
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional += 1
            needed += parameter.default is parameter.empty
    return (needed if inspect.ismethod(task.run) else positional) > 1


def _open_parameters(run: Callable[..., Any], signature: Mapping[str, Any]) -> Iterable[inspect.Parameter]:
    """Return the parameters that the arguments of a signature leave open."""
    args, kwargs = signature.get("args") or (), signature.get("kwargs") or {}
    if (args or kwargs) and not signature.get("immutable"):
        # Arguments that do not fit count as none: calling it says what is wrong.
        with suppress(TypeError):
            return inspect.signature(partial(run, *args, **kwargs)).parameters.values()
    return inspect.signature(run).parameters.values()


def _call_errback(task: Any, signature: Mapping[str, Any], details: tuple[Any, ...]) -> None:
    given = () if signature.get("immutable") else details
    task(*given, *(signature.get("args") or ()), **(signature.get("kwargs") or {}))


def _fail_chain(call: Call, outcome: Outcome) -> tuple[list[Message], list[Part]]:
    """End the later steps of the chain: nobody is to wait for them, and chords that count on them hear of it.

    Their states are stored by a message, which is sent in one step with this outcome: should this run not count after
    all, they have not ended.
    """
    request = call.request
    steps = [full(step) for step in reversed(request.chain)]
    members = doomed(steps).memberships
    parts = failed_parts(call.app, members, outcome.exc, content_type_of(request))
    if call.app.store is None:
        return [], parts
    return [fail_message(source_of(call), steps, outcome.exc, outcome.traceback, request=request)], parts


def fail_message(
    source: Source,
    steps: Sequence[Mapping[str, Any]],
    exc: BaseException | None,
    traceback: str | None = None,
    *,
    request: Any,
    errbacks: bool = False,
) -> Message:
    """Return the message of `umbel.fail`, which gives a failure to steps that will never run.

    With `errbacks` it also calls those of the request: for ends that no executor concludes.
    """
    details: dict[str, Any] = {"traceback": traceback, "reply_to": request.reply_to}
    if errbacks:
        details["request"] = {
            name: getattr(request, name)
            for name in ("id", "task", "root_id", "parent_id", "group", "errbacks", "retries", "args", "kwargs")
        }
    return flow_message(
        source.app,
        "umbel.fail",
        (list(steps), None if exc is None else exception_fields(source.app.conf, exc), details),
        task_id=source.id_at("fail"),
        root_id=source.root_id,
        serializer=serializer_of(content_type_of(request)),
        known=request.task if request.task in source.app.tasks else "",
    )
