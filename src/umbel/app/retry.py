"""Retries: when, with which arguments, and the message that carries the next attempt.

Inside a worker nothing is published here: the exception `Retry` takes the ready message to the settlement,
which sends it together with the end of the lease.
"""

from __future__ import annotations

import inspect
import random
import sys
from typing import Any, NamedTuple, NoReturn

import msgspec

from umbel.app import request as requests
from umbel.app.traits import classes_of
from umbel.core.errors import MaxRetriesExceededError, Reject, Retry

__all__ = ["NextCall", "backoff", "retry_automatically", "retry_by_hand", "retry_task"]

#: RabbitMQ adds these to a message that it moved between queues; a new attempt starts without them.
_MOVED = "x-death"


class NextCall(NamedTuple):
    """The next attempt of an eager call, which `apply` runs in place."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    retries: int


def backoff(retries: int, *, factor: float, maximum: float, jitter: bool, rng: random.Random) -> int:
    """Return the seconds before the next automatic retry: factor * 2**retries, at most `maximum`.

    With jitter a whole number between 0 and that (Celery: `get_exponential_backoff_interval`).
    """
    # Beyond 2**64 the maximum has long been reached.
    seconds = int(min(maximum, factor * 2 ** min(retries, 64)))
    return max(0, rng.randrange(seconds + 1) if jitter and seconds > 0 else seconds)


def retry_task(
    task: Any,
    args: Any = None,
    kwargs: Any = None,
    exc: BaseException | None = None,
    throw: bool = True,
    eta: Any = None,
    countdown: float | None = None,
    max_retries: int | None = None,
    **options: Any,
) -> Retry:
    """Ask for another attempt of the running task: what `Task.retry` does.

    Raises Retry, or returns it where `throw` is false; raises `exc` (or the task's MaxRetriesExceededError)
    when `max_retries` are used up. In a direct call the error at hand is raised. Celery: `Task.retry`.
    """
    request = requests.request_of(task)
    current = sys.exc_info()[1]
    if request is None or request.called_directly:
        _raise_directly(exc, current)
    if max_retries is not None:
        request.override_max_retries = max_retries
    allowed = task.max_retries if max_retries is None else max_retries
    if eta is None and countdown is None:
        countdown = task.default_retry_delay
    args, kwargs = _arguments(task, request, args, kwargs)
    if allowed is not None and request.retries >= allowed:
        _give_up(task, request, exc, (args, kwargs))
    when = countdown if countdown is not None else eta
    if request.is_eager:
        following: Any = NextCall(tuple(args), dict(kwargs), request.retries + 1)
    else:
        timing = {"countdown": countdown} if countdown is not None else {"eta": eta}
        try:
            following = _next_message(task, request, (args, kwargs), {**timing, **options})
        except Exception as error:
            raise Reject(error, requeue=False) from error
    retry = Retry(exc=exc if exc is not None else current, when=when, is_eager=request.is_eager, sig=following)
    if throw:
        raise retry from exc
    return retry


def retry_automatically(call: Any, exc: BaseException) -> Retry | None:
    """Return the Retry that `autoretry_for` asks for, or None; raises when the attempts are used up."""
    task = call.task
    if not task.autoretry_for or not isinstance(exc, classes_of(task, "autoretry_for")):
        return None
    if isinstance(exc, classes_of(task, "dont_autoretry_for")):
        return None
    options: dict[str, Any] = dict(task.retry_kwargs or {})
    if task.retry_backoff:
        options["countdown"] = backoff(
            call.request.retries,
            factor=max(1.0, float(task.retry_backoff)),
            maximum=task.retry_backoff_max,
            jitter=task.retry_jitter,
            rng=call.rng,
        )
    override = call.request.get("override_max_retries")
    if override is not None:
        options["max_retries"] = override
    try:
        return retry_task(task, exc=exc, throw=False, **options)
    except Retry as retry:  # `exc` given in retry_kwargs, or a Retry of a subclass
        return retry


def retry_by_hand(call: Any, raised: Retry) -> Retry:
    """Complete a Retry that the task raised itself instead of calling `retry`, so that an attempt follows."""
    when = raised.when
    timing: dict[str, Any] = {"countdown": when} if isinstance(when, (int, float)) else {"eta": when}
    return retry_task(call.task, exc=raised.exc, throw=False, **timing)


def _raise_directly(exc: BaseException | None, current: BaseException | None) -> NoReturn:
    if exc is not None and exc is not current:
        raise exc from current
    if current is not None:
        raise current
    raise Retry("Task can be retried", None)


def _give_up(task: Any, request: requests.Context, exc: BaseException | None, call: tuple[Any, Any]) -> NoReturn:
    current = sys.exc_info()[1]
    if exc is not None:
        if exc is current:
            raise exc
        raise exc from current
    error: type[Exception] = getattr(task, "MaxRetriesExceededError", MaxRetriesExceededError)
    text = f"{task.name}[{request.id}] has used up its {request.retries} retries (option max_retries)"
    if issubclass(error, MaxRetriesExceededError):
        raise error(text, task_args=call[0], task_kwargs=call[1]) from current
    raise error(text) from current


def _next_message(task: Any, request: requests.Context, call: tuple[Any, Any], options: dict[str, Any]) -> Any:
    """Build the follow-up: the same id and route, one attempt and one generation later."""
    job = request._job
    same = request.as_execution_options()
    same["headers"] = {key: value for key, value in same["headers"].items() if not key.startswith(_MOVED)}
    same["retries"] = request.retries + 1
    if not {"queue", "exchange", "routing_key"} & options.keys():
        if job.exchange:
            same["exchange"], same["routing_key"] = job.exchange, job.queue
        else:
            same["queue"] = job.queue
    same["priority"] = job.priority
    if request.ignore_result is not None:
        same["ignore_result"] = request.ignore_result
    if request.stamped_headers:
        same["stamped_headers"] = request.stamped_headers
        same.update(request.stamps or {})
    message = task.app.client.build(task, call[0], call[1], {**same, **options})
    return msgspec.structs.replace(message, id=job.id, generation=job.generation + 1)


def _arguments(task: Any, request: requests.Context, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of the next attempt: those of this one unless new ones are given (Celery 5.7).

    What is given in only one form replaces what the other form would give to the same parameter.
    """
    old_args, old_kwargs = tuple(request.args or ()), dict(request.kwargs or {})
    if args is None and kwargs is None:
        return old_args, old_kwargs
    if args is not None and kwargs is not None:
        return args, kwargs
    names = _positional_names(task)
    if kwargs is None:
        filled = set(names[: len(args)])
        return args, {name: value for name, value in old_kwargs.items() if name not in filled}
    clash = min((names.index(name) for name in kwargs if name in names[: len(old_args)]), default=None)
    if clash is None:
        return old_args, kwargs
    by_name = dict(zip(names[clash:], old_args[clash:], strict=False))
    return old_args[:clash], {**by_name, **kwargs}


def _positional_names(task: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, item in inspect.signature(task.run).parameters.items() if item.kind in kinds]
