"""Tasks that run in the caller (`Task.apply`, `task_always_eager`), through the pipeline of the worker."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.app import request as requests
from umbel.app import running
from umbel.app.records import record_of
from umbel.app.result import EagerResult
from umbel.app.retry import NextCall
from umbel.app.running import STATES, Call, Guard
from umbel.app.settlement import takes_details
from umbel.app.signature import maybe_signature
from umbel.app.traits import traits_of
from umbel.core import states
from umbel.core.outcome import Kind, Outcome
from umbel.engine.clock import SYSTEM_CLOCK

__all__ = ["apply_eager"]

_rng = random.Random()


def apply_eager(
    task: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    task_id: str,
    link: Any = None,
    link_error: Any = None,
    retries: int = 0,
    throw: bool | None = None,
    logfile: str | None = None,
    loglevel: int | str | None = None,
    headers: Mapping[str, Any] | None = None,
    **options: Any,
) -> EagerResult[Any]:
    """Run a task here and return its result; retries and callbacks run here too. Celery: `Task.apply`.

    With `throw` (default: `task_eager_propagates`) the exception of a failed task is raised.
    """
    conf = task.app.conf
    throw = conf.task_eager_propagates if throw is None else throw
    known = {
        "id": task_id,
        "task": task.name,
        "headers": dict(headers or {}),
        "callbacks": _signatures(link),
        "errbacks": _signatures(link_error),
        "root_id": options.pop("root_id", None) or task_id,
        "parent_id": options.pop("parent_id", None),
        "group": options.pop("group_id", None),
        "group_index": options.pop("group_index", None),
        "chain": options.pop("chain", None),
        "logfile": logfile,
        "loglevel": loglevel,
        "hostname": _hostname(),
        "delivery_info": {
            "is_eager": True,
            "exchange": options.pop("exchange", None),
            "routing_key": options.pop("routing_key", None) or options.pop("queue", None),
            "priority": options.pop("priority", None),
        },
        "is_eager": True,
        "called_directly": False,
    }
    next_call = NextCall(tuple(args or ()), dict(kwargs or {}), retries)
    while True:
        result, outcome = _attempt(task, next_call, known)
        if outcome.kind is Kind.RETRY and isinstance(outcome.retry, NextCall):
            next_call = outcome.retry
            continue
        if throw and outcome.exc is not None and result.state in states.PROPAGATE_STATES:
            raise outcome.exc
        return result


def _attempt(task: Any, next_call: NextCall, known: dict[str, Any]) -> tuple[EagerResult[Any], Outcome]:
    args, kwargs, retries = next_call
    request = requests.Context(known, args=args, kwargs=kwargs, retries=retries, **known["headers"])
    call = Call(task.app, task, traits_of(task), request, known["id"], args, kwargs, None, SYSTEM_CLOCK, _rng, None)
    return running.run(call, _finish, Guard())


def _finish(call: Call, outcome: Outcome) -> tuple[EagerResult[Any], Outcome]:
    state = STATES[outcome.kind]
    request = call.request
    if outcome.kind is Kind.SUCCESS:
        _call_links(call, outcome.value)
    elif state in states.PROPAGATE_STATES or outcome.kind is Kind.REJECT:
        _call_errbacks(call, outcome)
    value = outcome.value if outcome.kind is Kind.SUCCESS else outcome.exc
    result: EagerResult[Any] = EagerResult(call.id, value, state, outcome.traceback, call.traits.name)
    result._trail = list(request.children or ())
    if call.task.store_eager_result and not call.traits.ignore_result and state in states.READY_STATES:
        _store(call, outcome, state)
    return result, outcome


def _store(call: Call, outcome: Outcome, state: str) -> None:
    now = call.clock.now()
    value = outcome.value if outcome.kind is Kind.SUCCESS else outcome.exc
    record = record_of(call.app, call.id, state, value, now=now, traceback=outcome.traceback, request=call.request)
    call.app.store.put([record], now)


def _call_links(call: Call, value: Any) -> None:
    request = call.request
    for signature in request.callbacks or ():
        request.add_child(_apply(call, signature, (value,), {}))
    if request.chain:
        rest = list(request.chain)
        following = rest.pop()
        request.add_child(_apply(call, following, (value,), {"chain": rest or None}))


def _call_errbacks(call: Call, outcome: Outcome) -> None:
    for signature in call.request.errbacks or ():
        task = None if signature.get("subtask_type") else call.app.tasks[signature["task"]]
        if task is None or not takes_details(task, signature):
            _apply(call, signature, (call.id,), {})
            continue
        details = () if signature.get("immutable") else (call.request, outcome.exc, outcome.traceback)
        task(*details, *(signature.get("args") or ()), **(signature.get("kwargs") or {}))


def _apply(call: Call, signature: Mapping[str, Any], partial: tuple[Any, ...], more: dict[str, Any]) -> Any:
    found = maybe_signature(signature, app=call.app)
    return found.apply(partial, {}, root_id=call.request.root_id, parent_id=call.id, **more)


def _signatures(link: Any) -> list[Any] | None:
    if link is None:
        return None
    return list(link) if isinstance(link, (list, tuple)) else [link]


def _hostname() -> str:
    return socket.gethostname()
