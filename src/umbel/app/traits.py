"""What the pipeline has to know about a task, worked out once: its handlers, its policy, its callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.core.outcome import Kind, Policy, decide, stored_state

__all__ = ["Traits", "classes_of", "traits_of"]

HANDLERS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
#: Handlers defined in here do nothing, so they are not called at all.
_DEFAULT_HANDLERS = "umbel.app."
_ATTRIBUTE = "__umbel_traits__"

Handler = Callable[..., Any] | None


@dataclass(frozen=True, slots=True)
class Traits:
    """One task as the pipeline sees it. A handler that the task does not override is None."""

    task: Any
    name: str
    #: What runs the body: `run`, or the task itself where its class overrides `__call__`.
    call: Callable[..., Any]
    is_async: bool
    #: The policy where results are kept and where they are ignored.
    keeping: Policy
    ignoring: Policy
    #: The state that a success is stored with under each of them; None: nothing is stored.
    success_kept: str | None
    success_ignored: str | None
    ignore_result: bool
    track_started: bool
    #: The state of the settings that the traits were worked out from.
    version: int
    before_start: Handler = None
    on_success: Handler = None
    on_failure: Handler = None
    on_retry: Handler = None
    after_return: Handler = None

    def success_state(self, ignore_result: bool | None) -> str | None:
        """The state that a success of one call is stored with; `ignore_result` as in `policy`."""
        if self.ignore_result if ignore_result is None else ignore_result:
            return self.success_ignored
        return self.success_kept

    def policy(self, ignore_result: bool | None) -> Policy:
        """The policy of one call; `ignore_result` is what its message says, None where it says nothing."""
        if self.ignore_result if ignore_result is None else ignore_result:
            return self.ignoring
        return self.keeping


def traits_of(task: Any) -> Traits:
    """Return the traits of a task; they are worked out once, and again after a setting has changed."""
    traits: Traits | None = task.__dict__.get(_ATTRIBUTE)
    if traits is None or traits.version != task.app.conf.version:
        traits = _work_out(task)
        task.__dict__[_ATTRIBUTE] = traits
    return traits


def _work_out(task: Any) -> Traits:
    policy = _policy(task)
    keeping, ignoring = replace(policy, ignore_result=False), replace(policy, ignore_result=True)
    handlers = {name: _handler(task, name) for name in HANDLERS}
    own_call = not _is_default(type(task).__call__)
    return Traits(
        task=task,
        name=task.name,
        call=task if own_call else task.run,
        is_async=inspect.iscoroutinefunction(inspect.unwrap(task.run)),
        keeping=keeping,
        ignoring=ignoring,
        success_kept=stored_state(decide(Kind.SUCCESS, keeping), keeping),
        success_ignored=stored_state(decide(Kind.SUCCESS, ignoring), ignoring),
        ignore_result=bool(_option(task, "ignore_result", "task_ignore_result")),
        track_started=bool(_option(task, "track_started", "task_track_started")),
        version=task.app.conf.version,
        **handlers,
    )


def _policy(task: Any) -> Policy:
    conf = task.app.conf
    combined = getattr(task, "acks_on_failure_or_timeout", None)
    return Policy(
        acks_late=bool(_option(task, "acks_late", "task_acks_late")),
        acks_on_failure=_first(
            getattr(task, "acks_on_failure", None),
            combined,
            conf.task_acks_on_failure,
            conf.task_acks_on_failure_or_timeout,
        ),
        acks_on_timeout=_first(
            getattr(task, "acks_on_timeout", None),
            combined,
            conf.task_acks_on_timeout,
            conf.task_acks_on_failure_or_timeout,
        ),
        reject_on_worker_lost=_option(task, "reject_on_worker_lost", "task_reject_on_worker_lost"),
        retry_on_worker_lost=bool(_option(task, "retry_on_worker_lost", "task_retry_on_worker_lost")),
        store_errors=bool(
            _option(task, "store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
        ),
        max_crashes=conf.worker_max_crashes,
    )


def _option(task: Any, name: str, setting: str) -> Any:
    value = getattr(task, name, None)
    return getattr(task.app.conf, setting) if value is None else value


def _first(*values: bool | None) -> bool:
    return next((value for value in values if value is not None), True)


def classes_of(task: Any, name: str) -> tuple[type[BaseException], ...]:
    """The exception classes of an option such as `throws`, which may be one class or several."""
    value = getattr(task, name, None) or ()
    return tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)


def _handler(task: Any, name: str) -> Handler:
    handler: Handler = getattr(task, name, None)
    if handler is None or _is_default(handler):
        return None
    if inspect.iscoroutinefunction(handler):
        raise ImproperlyConfigured(
            f"{task.name}.{name} is an async function, but handlers are called, not awaited: "
            "write it as a plain function"
        )
    return handler


def _is_default(function: Any) -> bool:
    module = getattr(function, "__module__", None)
    return isinstance(module, str) and module.startswith(_DEFAULT_HANDLERS)
