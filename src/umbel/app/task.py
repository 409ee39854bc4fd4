"""The task: a function with a name and options, which can be called here or sent to a worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast

from umbel.app import request as requests
from umbel.app.calling import acall, call, call_many
from umbel.app.canvas.names import chunks, xmap, xstarmap
from umbel.app.eager import apply_eager
from umbel.app.ids import new_id
from umbel.app.records import record_of
from umbel.app.replacing import add_to_chord, replace_task, send_replacement
from umbel.app.result import AsyncResult, EagerResult
from umbel.app.retry import retry_task
from umbel.app.signature import Signature
from umbel.app.task_options import FROM_CONFIG, AppOf, from_config
from umbel.app.typing_check import ArgumentCheck
from umbel.core import errors
from umbel.core.errors import NotSupportedError, Retry

__all__ = ["CoroutineTask", "Task"]

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """Base of all tasks (Celery: `celery.app.task.Task`). Attributes are options; subclasses may set them.

    A task is one object for each app and process. Times are seconds.
    """

    app: Any = AppOf()
    #: Unique in the app; made of module and function where it is not given.
    name: str = None  # type: ignore[assignment]
    abstract = True
    #: Check arguments at the call; None: as the app's `strict_typing` says.
    typing: bool | None = None
    #: None: without end.
    max_retries: int | None = 3
    default_retry_delay: float = 180
    rate_limit: Any = from_config("task_default_rate_limit")
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: Any = from_config("task_ignore_result")
    store_errors_even_if_ignored: Any = from_config("task_store_errors_even_if_ignored")
    store_eager_result: Any = from_config("task_store_eager_result")
    serializer: Any = from_config("task_serializer")
    compression: Any = from_config("task_compression")
    delivery_mode: Any = None
    queue: Any = None
    exchange: Any = None
    exchange_type: Any = None
    routing_key: Any = None
    immediate: Any = None
    mandatory: Any = None
    priority: Any = from_config("task_default_priority")
    expires: Any = None
    track_started: Any = from_config("task_track_started")
    acks_late: Any = from_config("task_acks_late")
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: Any = from_config("task_reject_on_worker_lost")
    retry_on_worker_lost: Any = from_config("task_retry_on_worker_lost")
    throws: Any = ()
    #: Keep the results of tasks that this one sends as its children.
    trail = True
    send_events = True
    resultrepr_maxsize = 1024
    autoretry_for: Any = ()
    dont_autoretry_for: Any = ()
    retry_kwargs: Mapping[str, Any] | None = None
    retry_backoff: Any = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    from_config: ClassVar[tuple[tuple[str, str], ...]] = FROM_CONFIG
    MaxRetriesExceededError: Any = errors.MaxRetriesExceededError
    OperationalError: Any = errors.OperationalError
    #: True: pydantic models among the arguments are sent as plain values and validated before the run.
    pydantic = False
    _check: ArgumentCheck | None = None

    def __init__(self) -> None:
        if not self.name:
            self.name = self.app.gen_task_name(type(self).__name__, type(self).__module__)

    # --- binding -----------------------------------------------------------------------------------------------

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Hook for subclasses: the class has been bound to `app`."""

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Make the class belong to `app`; return the app."""
        cls.app = app
        cls.on_bound(app)
        return app

    @classmethod
    def add_around(cls, attr: str, around: Any) -> None:
        """Wrap a method: `around` gets the method and returns what takes its place."""
        setattr(cls, attr, around(getattr(cls, attr)))

    def annotate(self) -> None:
        """Apply what `task_annotations` says about this task."""
        for name, value in self.app.annotations.changes(self).items():
            if name.startswith("@"):
                setattr(self, name[1:], value(getattr(self, name[1:])))
            else:
                setattr(self, name, value)

    @property
    def __name__(self) -> str:
        return self.__class__.__qualname__

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main or '__main__'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _task_by_name, (self.name, type(self).__module__)

    # --- calling here ------------------------------------------------------------------------------------------

    def run(self, *_: Any, **__: Any) -> Any:
        """The body of the task: what subclasses define."""
        raise TypeError(f"the task {self.name} has no body: define run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here, without a message (`request.called_directly` is true)."""
        frame = requests.top()
        started = frame is not None and frame.task is self and not frame.request.called_directly
        if frame is not None and started and not frame.request.get("entered"):
            # An overridden __call__ that the worker called goes on to the body.
            frame.request.update(entered=True)
            return cast(R, self.run(*args, **kwargs))
        token = requests.push(self, requests.Context(args=args, kwargs=kwargs))
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            requests.pop(token)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | str | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here as a worker would, and return its result (Celery: the same)."""
        return apply_eager(
            self,
            args,
            kwargs,
            task_id=task_id or new_id(),
            link=link,
            link_error=link_error,
            retries=retries or 0,
            throw=throw,
            logfile=logfile,
            loglevel=loglevel,
            headers=headers,
            **options,
        )

    # --- sending -----------------------------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments; return once the message is stored."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task with options (countdown, eta, expires, queue, priority …); return once it is stored.

        Raises TypeError for arguments that do not fit, ImproperlyConfigured for an unknown option, EncodeError for
        values that cannot be sent, OperationalError when the broker cannot store the message.
        """
        if producer is not None:
            options["producer"] = producer
        if task_id is not None:
            options["task_id"] = task_id
        if link is not None:
            options["link"] = link
        if link_error is not None:
            options["link_error"] = link_error
        if shadow is not None:
            options["shadow"] = shadow
        result: AsyncResult[R] = call(self, args, kwargs, options)
        return result

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Like `delay`, without blocking the event loop; callers that wait together are stored together."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Like `apply_async`, without blocking the event loop."""
        result: AsyncResult[R] = await acall(self, args, kwargs, options)
        return result

    def delay_many(self, calls: Iterable[Sequence[Any]]) -> list[AsyncResult[R]]:
        """Send one task for each tuple of arguments, many to a transaction; return their results in order."""
        return call_many(self, ((args, {}) for args in calls), {})

    def apply_async_many(
        self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], **options: Any
    ) -> list[AsyncResult[R]]:
        """Send one task for each (args, kwargs), all with the same options, many to a transaction."""
        return call_many(self, calls, options)

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Signature[R]:
        """Return the call as a value that can be kept, sent and linked."""
        return Signature(self, args, kwargs, options, **{"app": self.app, **more})

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return the signature of a call with these (perhaps not yet all) arguments."""
        return Signature(self, args, kwargs, app=self.app)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Return an immutable signature, which takes no arguments of the tasks before it."""
        return Signature(self, args, kwargs, immutable=True, app=self.app)

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None, **extra: Any
    ) -> Signature[R]:
        """Return a signature that sends the running call again: same id and options."""
        request = self.request if request is None else request
        options = {key: value for key, value in request.as_execution_options().items() if value is not None}
        info = request.delivery_info or {}
        if queue is not None or info.get("routing_key"):
            options["queue"] = queue if queue is not None else info["routing_key"]
        if info.get("priority") is not None:
            options["priority"] = info["priority"]
        return Signature(
            self,
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
            {**options, **extra},
            app=self.app,
        )

    subtask_from_request = signature_from_request

    def chunks(self, it: Iterable[Any], n: int) -> chunks:
        """Return the calls with these tuples of arguments, `n` to a message."""
        return chunks(self.s(), it, n, app=self.app)

    def map(self, it: Iterable[Any]) -> xmap:
        """Return one message that calls the task with each item, one after the other."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> xstarmap:
        """Return one message that calls the task with each tuple of arguments, one after the other."""
        return xstarmap(self.s(), it, app=self.app)

    def replace(self, sig: Any) -> Any:
        """Let `sig` take the place of the running call; write `return self.replace(sig)` (Celery: the same)."""
        return replace_task(self, sig)

    def on_replace(self, sig: Any) -> Any:
        """Hook: what replaces the running call is about to be sent; return `super().on_replace(sig)`."""
        return send_replacement(self, sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Let `sig` into the chord of the running call, and send it (`lazy`: return it to be sent)."""
        return add_to_chord(self, sig, lazy=lazy)

    # --- inside a run ------------------------------------------------------------------------------------------

    @property
    def request(self) -> requests.Context:
        """The call that runs here; an empty one outside a run."""
        return requests.request_of(self) or requests.Context()

    def push_request(self, *args: Any, **kwargs: Any) -> Token[Any]:
        """Make a request the running one, for tests; `pop_request` undoes it."""
        return requests.push(self, requests.Context(*args, **kwargs))

    def pop_request(self) -> requests.Context | None:
        """Undo `push_request`."""
        return requests.pop_top()

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Ask for another attempt of the running call: raises Retry (see `umbel.app.retry.retry_task`)."""
        return retry_task(self, args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **_: Any) -> None:
        """Store a state (custom ones allowed) and what it carries; default: of the running call."""
        request = self.request
        task_id = request.id if task_id is None else task_id
        if task_id is None:
            raise ValueError("update_state needs a task_id outside a running task")
        if self.app.store is not None:
            now = time.time()
            record = record_of(self.app, task_id, state or "PENDING", meta, now=now, request=request)
            self.app.store.put([record], now)

    def send_event(self, type_: str, *_: Any, **__: Any) -> None:
        """Not there yet."""
        raise NotSupportedError(f"the event {type_!r} cannot be sent: umbel has no events yet; use update_state")

    def add_trail(self, result: Any) -> Any:
        """Keep the result among the children of the running call; return it."""
        if self.trail:
            self.request.add_child(result)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 - Celery's public name
        """Return the result of a call of this task by its id."""
        kwargs.setdefault("task_name", self.name)
        return AsyncResult(task_id, app=self.app, **kwargs)

    @property
    def backend(self) -> Any:
        """Where results are stored."""
        return self.app.store

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Hook: the name to show instead of the task's own; None for that."""

    def start_strategy(self, *_: Any, **__: Any) -> Any:
        """Not there."""
        raise NotSupportedError("umbel has no execution strategies; override __call__ or the handlers")

    # --- handlers ----------------------------------------------------------------------------------------------

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker before the run."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker after a success."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker after a failure."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when another attempt follows."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker after success and failure."""


class CoroutineTask(Task[P, R]):
    """How type checkers see a task whose body is `async def`: a direct call gives a coroutine."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run the body here."""
        return await self.run(*args, **kwargs)  # type: ignore[no-any-return]


def _task_by_name(name: str, module: str) -> Any:
    from umbel.app.current import get_current_app
    from umbel.app.loading import import_quietly

    app = get_current_app()
    if name not in app.tasks:
        import_quietly(module)
    return app.tasks[name]
