"""The request of a running task (`task.request`) and the stack that says which task runs here and now."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from umbel.core import json_types
from umbel.core.flow.late import LateSteps
from umbel.core.head import Head, custom_headers, format_time
from umbel.core.head_reader import headers_of

__all__ = [
    "Context",
    "Frame",
    "current_task",
    "current_worker_task",
    "pop",
    "push",
    "request_of",
    "top",
]

#: What an attribute is where neither the message nor the worker says anything.
_DEFAULTS: dict[str, Any] = {
    "id": None,
    "task": None,
    "root_id": None,
    "parent_id": None,
    "group": None,
    "group_index": None,
    "chord": None,
    "chain": None,
    "callbacks": None,
    "errbacks": None,
    "args": None,
    "kwargs": None,
    "retries": 0,
    "eta": None,
    "expires": None,
    "timelimit": None,
    "hostname": None,
    "delivery_info": None,
    "reply_to": None,
    "correlation_id": None,
    "called_directly": True,
    "is_eager": False,
    "ignore_result": None,
    "properties": None,
    "origin": None,
    "shadow": None,
    "stamps": None,
    "stamped_headers": None,
    "replaced_task_nesting": 0,
    "utc": True,
    "logfile": None,
    "loglevel": None,
    "children": None,
    "argsrepr": None,
    "kwargsrepr": None,
    "compression": None,
    "lang": None,
}
#: What the head of the message says, under the same name in the request.
_FROM_HEAD = frozenset(
    {
        "task", "id", "retries", "timelimit", "reply_to", "correlation_id", "root_id", "parent_id", "group",
        "group_index", "ignore_result", "argsrepr", "kwargsrepr", "origin", "shadow", "lang", "compression",
        "stamped_headers", "stamps", "replaced_task_nesting",
    }
)  # fmt: skip
#: What is worked out at the first look, since few tasks look.
_DERIVED = frozenset({"eta", "expires", "delivery_info", "properties"})


class Context:
    """What a task can know about the call that it serves; its attributes are the message's headers and more.

    Custom headers are attributes too, and together in `headers`. A header can never hide a method.
    Celery: `celery.app.task.Context`.
    """

    __slots__ = ("__weakref__", "_head", "_job", "_values")

    _values: dict[str, Any]
    #: The job that the worker runs and the typed view of its head; None for direct and eager calls.
    _job: Any
    _head: Head | None

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        _set_values(self, {**(values or {}), **more})
        _set_job(self, None)
        _set_head(self, None)

    @classmethod
    def adopt(cls, values: dict[str, Any], job: Any, head: Head) -> Context:
        """Make the context of a job: it owns `values`, and looks the rest up in the message when asked."""
        self = cls.__new__(cls)
        _set_values(self, values)
        _set_job(self, job)
        _set_head(self, head)
        return self

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_":
            raise AttributeError(name)
        values = self._values
        if name in values:
            value = values[name]
            if type(value) is LateSteps:
                value = values[name] = value.read()
            return value
        if self._head is not None:
            if name in _FROM_HEAD:
                return getattr(self._head, name)
            if name in _DERIVED:
                value = values[name] = self._derive(name, self._head)
                return value
        if name in _DEFAULTS:
            return _DEFAULTS[name]
        if self._head is not None and name in self.headers:
            return self.headers[name]
        raise AttributeError(f"the request of this task has no attribute or header {name!r}")

    def _derive(self, name: str, head: Head) -> Any:
        if name == "delivery_info":
            job = self._job
            return {
                "exchange": job.exchange,
                "routing_key": job.queue,
                "priority": job.priority,
                "redelivered": job.token > 1,
            }
        if name == "properties":
            return json_types.loads(self._job.head).get("properties")
        when: float | None = getattr(head, name)
        return None if when is None else format_time(when)

    def __setattr__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delattr__(self, name: str) -> None:
        if self._values.pop(name, _DEFAULTS) is _DEFAULTS:
            raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<Context: {self.task or 'direct call'}[{self.id}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.as_dict(),)

    @property
    def headers(self) -> dict[str, Any]:
        """The caller's own headers, without those of the task protocol."""
        custom: dict[str, Any] | None = self._values.get("headers")
        if custom is None:
            custom = {} if self._head is None else custom_headers(headers_of(self._job.head))
            self._values["headers"] = custom
        return custom

    @property
    def taskset(self) -> Any:
        """Old name of `group`."""
        return self.group

    @property
    def time_limit(self) -> float | None:
        """Hard time limit of this call in seconds; None where the message sets none."""
        limits = self.timelimit
        return limits[0] if limits else None

    @property
    def soft_time_limit(self) -> float | None:
        """Soft time limit of this call in seconds; None where the message sets none."""
        limits = self.timelimit
        return limits[1] if limits and len(limits) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Every attribute with its value, as Celery's handlers of `task_internal_error` get it."""
        return {**{name: getattr(self, name) for name in _DEFAULTS}, "headers": self.headers, **self._values}

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute or header, or `default`."""
        return getattr(self, key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes, as `dict.update` does."""
        self._values.update(*args, **kwargs)

    def clear(self) -> None:
        """Back to what a direct call has."""
        self._values.clear()
        _set_head(self, None)
        _set_job(self, None)

    def add_child(self, result: Any) -> None:
        """Remember the result of a task that this one sent (`Task.trail`)."""
        children = self._values.get("children")
        if children is None:
            children = self._values["children"] = []
        children.append(result)

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options for `apply_async` that send the same call again."""
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": self.soft_time_limit,
            "time_limit": self.time_limit,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }


# The descriptors of the slots, since plain assignment sets attributes of the request.
_set_values = vars(Context)["_values"].__set__
_set_job = vars(Context)["_job"].__set__
_set_head = vars(Context)["_head"].__set__


class Frame(NamedTuple):
    """One running task and the frame below it."""

    task: Any
    request: Context
    outer: Frame | None


_stack: ContextVar[Frame | None] = ContextVar("umbel_request_stack", default=None)


def push(task: Any, request: Context) -> Token[Frame | None]:
    """Make `task` the running one in this thread or asyncio task; hand the token to `pop`."""
    return _stack.set(Frame(task, request, _stack.get()))


def pop(token: Token[Frame | None]) -> None:
    """Undo the `push` that gave the token."""
    _stack.reset(token)


def pop_top() -> Context | None:
    """Take the top frame away (for callers that kept no token); None where nothing runs."""
    frame = _stack.get()
    if frame is None:
        return None
    _stack.set(frame.outer)
    return frame.request


def top() -> Frame | None:
    """The frame of the task that runs here, if any."""
    return _stack.get()


def request_of(task: Any) -> Context | None:
    """The request that `task` is serving here; None when it is not running here."""
    frame = _stack.get()
    while frame is not None:
        if frame.task is task:
            return frame.request
        frame = frame.outer
    return None


def current_task() -> Any:
    """The task that runs here, called in whatever way; None outside tasks."""
    frame = _stack.get()
    return None if frame is None else frame.task


def current_worker_task() -> Any:
    """The task here that a message (or `apply`) started, beneath direct calls; None outside tasks."""
    frame = _stack.get()
    while frame is not None:
        if not frame.request.called_directly:
            return frame.task
        frame = frame.outer
    return None
