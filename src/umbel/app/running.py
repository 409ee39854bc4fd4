"""One run of a task from the first handler to the last signal; what it gave is an Outcome, no exception.

`run` (functions) and `arun` (`async def`) share every step but the call itself. The caller hands in what an
outcome becomes (a report to the worker, or an EagerResult), so that a result which cannot be stored is a
failure that the handlers hear of.
"""

from __future__ import annotations

import contextvars
import logging
import random
import threading
import traceback as tracebacks
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from umbel.app import request as requests
from umbel.app import signals
from umbel.app.exceptions_io import ExceptionInfo, traceback_text
from umbel.app.handover import HandedOver
from umbel.app.registry import is_quiet
from umbel.app.retry import retry_automatically, retry_by_hand
from umbel.app.traits import Traits
from umbel.core import states
from umbel.core.errors import Ignore, Reject, Retry, SoftTimeLimitExceeded, TimeLimitExceeded
from umbel.core.outcome import Kind, Outcome
from umbel.engine.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    import asyncio

__all__ = ["Call", "Guard", "arun", "end", "run"]

T = TypeVar("T")
logger = logging.getLogger("celery.worker")

#: The state that handlers and `task_postrun` are told.
STATES: dict[Kind, str] = {
    Kind.SUCCESS: states.SUCCESS,
    Kind.FAILURE: states.FAILURE,
    Kind.RETRY: states.RETRY,
    Kind.IGNORE: states.IGNORED,
    Kind.REJECT: states.REJECTED,
    Kind.REQUEUE: states.REJECTED,
    Kind.REVOKED: states.REVOKED,
    Kind.TIMEOUT: states.FAILURE,
    Kind.LOST: states.FAILURE,
    Kind.REPLACED: states.IGNORED,
}
_FAILED = frozenset({Kind.FAILURE, Kind.TIMEOUT, Kind.LOST, Kind.REJECT})


_RNG = random.Random()


class Guard:
    """Says whether the task's own code is running: only then may a signal handler raise a soft time limit."""

    __slots__ = ("in_task",)

    def __init__(self) -> None:
        self.in_task = False


@dataclass(slots=True)
class Call:
    """One call of a task, ready to be run. `job` is what the worker was given; None for eager calls."""

    app: Any
    task: Any
    traits: Traits
    request: requests.Context
    id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    job: Any = None
    clock: Clock = SYSTEM_CLOCK
    rng: random.Random = _RNG
    #: Stores STARTED before the run; None where it is not tracked.
    on_start: Callable[[Call], None] | None = None


Finish = Callable[[Call, Outcome], T]


def run(call: Call, finish: Finish[T], guard: Guard) -> T:
    """Run the call here, awaiting what it returns if need be; return what `finish` makes of the outcome."""
    token = requests.push(call.task, call.request)
    try:
        started = call.clock.monotonic()
        try:
            _begin(call)
            guard.in_task = True
            value = call.traits.call(*call.args, **call.kwargs)
            if hasattr(type(value), "__await__"):
                value = _await_here(value)
            guard.in_task = False
            outcome = Outcome(Kind.SUCCESS, value, runtime=call.clock.monotonic() - started)
        except BaseException as exc:  # noqa: BLE001 - whatever a task raises is its outcome
            guard.in_task = False
            outcome = _from_exception(call, exc, call.clock.monotonic() - started)
        return end(call, outcome, finish)
    finally:
        guard.in_task = False
        requests.pop(token)


async def arun(call: Call, finish: Finish[T]) -> T:
    """Run the call on the current event loop.

    `asyncio.Task.cancel(SoftTimeLimitExceeded(...))` raises that inside the task's own code; a plain
    cancellation goes through to the caller, who has to conclude the call.
    """
    import asyncio

    token = requests.push(call.task, call.request)
    try:
        started = call.clock.monotonic()
        try:
            _begin(call)
            value = call.traits.call(*call.args, **call.kwargs)
            if hasattr(type(value), "__await__"):
                value = await _Interruptible(value)
            outcome = Outcome(Kind.SUCCESS, value, runtime=call.clock.monotonic() - started)
        except BaseException as exc:
            current = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and current is not None and current.cancelling():
                raise
            outcome = _from_exception(call, exc, call.clock.monotonic() - started)
        return end(call, outcome, finish)
    finally:
        requests.pop(token)


def end(call: Call, outcome: Outcome, finish: Finish[T]) -> T:
    """Turn the outcome into its effects, then tell handlers and signals; the request must be on the stack."""
    try:
        result = finish(call, outcome)
    except (SoftTimeLimitExceeded, TimeLimitExceeded):  # came a moment too late to count
        result = finish(call, outcome)
    except Exception as exc:  # noqa: BLE001 - the value cannot be stored, or a follow-up not be sent
        # The frames are all ours and say nothing about the task.
        text = "".join(tracebacks.format_exception_only(exc))
        outcome = Outcome(Kind.FAILURE, exc=exc, traceback=text, runtime=outcome.runtime)
        result = finish(call, outcome)
    _tell(call, outcome)
    return result


def failure(exc: BaseException, runtime: float = 0.0) -> Outcome:
    """The outcome of a call that failed with `exc`."""
    # The first frame is ours, not the task's.
    return Outcome(Kind.FAILURE, exc=exc, traceback=traceback_text(exc, skip=1), runtime=runtime)


# --- before and after -------------------------------------------------------------------------------------


def _begin(call: Call) -> None:
    if signals.task_prerun.receivers and not is_quiet(call.traits.name):
        signals.task_prerun.send(sender=call.task, task_id=call.id, task=call.task, args=call.args, kwargs=call.kwargs)
    if call.on_start is not None:
        call.on_start(call)
    if call.traits.before_start is not None:
        call.traits.before_start(call.id, call.args, call.kwargs)


def _from_exception(call: Call, exc: BaseException, runtime: float) -> Outcome:
    """Say which outcome an exception of the task is."""
    if call.request.is_eager and isinstance(exc, (KeyboardInterrupt, SystemExit)):
        raise exc
    if isinstance(exc, HandedOver):
        return Outcome(Kind.REPLACED, exc=exc, runtime=runtime)
    if isinstance(exc, Ignore):
        return Outcome(Kind.IGNORE, exc=exc, runtime=runtime)
    if isinstance(exc, TimeLimitExceeded):  # a pool that cannot kill raises the hard limit in the task
        return Outcome(Kind.TIMEOUT, exc=exc, traceback=traceback_text(exc, skip=1), runtime=runtime)
    if not isinstance(exc, (Retry, Reject)):
        try:
            exc = retry_automatically(call, exc) or exc
        except BaseException as given_up:  # noqa: BLE001 - the task's own error, or why no retry can be sent
            exc = given_up
    elif isinstance(exc, Retry) and exc.sig is None:
        try:
            exc = retry_by_hand(call, exc)
        except BaseException as given_up:  # noqa: BLE001 - the same
            exc = given_up
    if isinstance(exc, Reject):
        kind = Kind.REQUEUE if exc.requeue else Kind.REJECT
        return Outcome(kind, exc=exc, traceback=traceback_text(exc, skip=1), runtime=runtime)
    if isinstance(exc, Retry):
        reason = exc.exc if exc.exc is not None else exc
        text = traceback_text(reason, skip=1)
        return Outcome(Kind.RETRY, value=exc, exc=reason, traceback=text, runtime=runtime, retry=exc.sig)
    return failure(exc, runtime)


def _tell(call: Call, outcome: Outcome) -> None:
    """Call the handlers that the task has and the signals that somebody listens to."""
    traits, kind = call.traits, outcome.kind
    if kind is Kind.SUCCESS:
        if traits.on_success is not None:
            _handle(traits.on_success, outcome.value, call.id, call.args, call.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=call.task, result=outcome.value, runtime=outcome.runtime)
    elif kind in _FAILED:
        _tell_failure(call, outcome)
    elif kind is Kind.RETRY:
        _tell_retry(call, outcome)
    value = outcome.value if kind is Kind.SUCCESS else outcome.exc
    if traits.after_return is not None and (kind is Kind.SUCCESS or (kind in _FAILED and kind is not Kind.REJECT)):
        einfo = None if outcome.exc is None else ExceptionInfo(outcome.exc, outcome.traceback)
        _handle(traits.after_return, STATES[kind], value, call.id, call.args, call.kwargs, einfo)
    if signals.task_postrun.receivers and not is_quiet(call.traits.name):
        signals.task_postrun.send(
            sender=call.task,
            task_id=call.id,
            task=call.task,
            args=call.args,
            kwargs=call.kwargs,
            retval=value,
            state=STATES[kind],
        )


def _tell_failure(call: Call, outcome: Outcome) -> None:
    exc = outcome.exc
    if exc is None or (call.traits.on_failure is None and not signals.task_failure.receivers):
        return
    einfo = ExceptionInfo(exc, outcome.traceback)
    if call.traits.on_failure is not None and outcome.kind is not Kind.REJECT:
        _handle(call.traits.on_failure, exc, call.id, call.args, call.kwargs, einfo)
    signals.task_failure.send(
        sender=call.task,
        task_id=call.id,
        exception=exc,
        args=call.args,
        kwargs=call.kwargs,
        traceback=exc.__traceback__,
        einfo=einfo,
    )


def _tell_retry(call: Call, outcome: Outcome) -> None:
    exc = outcome.exc
    if exc is None or (call.traits.on_retry is None and not signals.task_retry.receivers):
        return
    einfo = ExceptionInfo(exc, outcome.traceback)
    if call.traits.on_retry is not None:
        _handle(call.traits.on_retry, exc, call.id, call.args, call.kwargs, einfo)
    signals.task_retry.send(sender=call.task, request=call.request, reason=outcome.value or exc, einfo=einfo)


def _handle(handler: Callable[..., Any], *args: Any) -> None:
    """Call a handler; what it raises is logged and changes nothing (Celery 5.7: the same)."""
    try:
        handler(*args)
    except BaseException as exc:
        logger.exception("the handler %s raised %s", handler.__qualname__, type(exc).__name__)


# --- awaitables -------------------------------------------------------------------------------------------


async def _wait_for(value: Awaitable[T]) -> T:
    return await value


def _await_here(value: Awaitable[T]) -> T:
    """Wait for an awaitable in plain code: on a loop of its own, in a thread if a loop runs here."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait_for(value))
    box: list[T] = []
    error: list[BaseException] = []
    context = contextvars.copy_context()

    def body() -> None:
        try:
            box.append(context.run(asyncio.run, _wait_for(value)))
        except BaseException as exc:  # noqa: BLE001 - handed to the waiting thread
            error.append(exc)

    thread = threading.Thread(target=body, name="umbel-await", daemon=True)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return box[0]


class _Interruptible:
    """Awaits a coroutine; a cancellation that carries a SoftTimeLimitExceeded is raised in there as that."""

    __slots__ = ("_awaited",)

    def __init__(self, awaited: Awaitable[Any]) -> None:
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        import asyncio

        # A coroutine of our own around it, since other awaitables need not know `send` and `throw`.
        steps = _wait_for(self._awaited).__await__()
        try:
            waited = next(steps)
            while True:
                try:
                    sent = yield waited
                except asyncio.CancelledError as cancelled:
                    waited = steps.throw(_translate(cancelled))
                except BaseException as exc:  # noqa: BLE001 - the event loop raises into the coroutine
                    waited = steps.throw(exc)
                else:
                    waited = steps.send(sent)
        except StopIteration as stop:
            return stop.value


def _translate(cancelled: asyncio.CancelledError) -> BaseException:
    import asyncio

    reason = cancelled.args[0] if cancelled.args else None
    current = asyncio.current_task()
    if isinstance(reason, SoftTimeLimitExceeded) and current is not None:
        current.uncancel()
        return reason
    return cancelled
