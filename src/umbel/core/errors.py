"""The one tree of exceptions and warnings that umbel raises, with Celery's names where Celery has one.

UmbelError (alias CeleryError)
├─ ImproperlyConfigured ── NotSupportedError ── NotThereYet
├─ SecurityError · IncompleteStream · TaskRevokedError · InvalidTaskError · ChordError
├─ TaskPredicate ── Ignore · Reject · Retry
├─ TaskError ── QueueNotFound · NotRegistered · AlreadyRegistered · TimeoutError · MaxRetriesExceededError · RemoteError
├─ SerializationError ── EncodeError · DecodeError ── ContentDisallowed · MessageRefused
├─ BackendError ── BackendGetMetaError · BackendStoreError
├─ OperationalError ── EngineBusy · StorageFull · PublishTimeout · Unroutable
└─ TimeLimitExceeded · SoftTimeLimitExceeded · WorkerLostError · ProducerLostError · Terminated
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "EngineBusy",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "MessageRefused",
    "NotConfigured",
    "NotRegistered",
    "NotSupportedError",
    "NotThereYet",
    "OperationalError",
    "ProducerLostError",
    "PublishTimeout",
    "QueueNotFound",
    "Reject",
    "RemoteError",
    "Retry",
    "RetryTaskError",
    "SecurityError",
    "SecurityWarning",
    "SerializationError",
    "SoftTimeLimitExceeded",
    "StorageFull",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UmbelError",
    "UmbelWarning",
    "Unroutable",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
]


class UmbelError(Exception):
    """Root of every error that umbel raises on purpose."""


CeleryError = UmbelError


class ImproperlyConfigured(UmbelError):
    """A setting, an option or an installed package does not fit; the message says what to change."""


class NotSupportedError(ImproperlyConfigured):
    """What was asked for exists in Celery (or is planned) but umbel does not do it; the message says what to do."""


class NotThereYet(NotSupportedError, ImportError):
    """Celery has this name and umbel has not; raised on import, and the message says what to do."""


class SecurityError(UmbelError):
    """A message or result could not be trusted."""


class SerializationError(UmbelError):
    """A value could not be turned into bytes or back."""


class EncodeError(SerializationError):
    """A value cannot be written with the chosen serializer."""


class DecodeError(SerializationError):
    """Bytes cannot be read with the serializer that they name."""


class ContentDisallowed(DecodeError):
    """The content type is not in `accept_content`."""


class MessageRefused(DecodeError):
    """A message passes one of the limits (size, depth, headers)."""


class TaskPredicate(UmbelError):
    """Base of what a task raises to say how it wants to end."""


class Ignore(TaskPredicate):
    """Raise in a task: its message is finished and no state is stored."""


class Reject(TaskPredicate):
    """Raise in a task: give its message back to the broker (`requeue=True`) or end it as a failure."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """Raised by `Task.retry`: this attempt is over and another one is on its way.

    `when` is the delay in seconds or an aware datetime; `exc` the reason, `message` a text.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: object = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.exc: BaseException | None = exc if isinstance(exc, BaseException) else None
        self.excs: str | None = exc if isinstance(exc, str) else (repr(exc) if exc is not None else None)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(self, exc, when, **kwargs)

    def humanize(self) -> str:
        """Return when the next attempt is due, in words."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc if self.exc is not None else self.excs, self.when)


RetryTaskError = Retry


class TaskError(UmbelError):
    """Base of errors about tasks."""


class QueueNotFound(KeyError, TaskError):
    """A task was routed to a queue that is not in `task_queues` while `task_create_missing_queues` is off."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IncompleteStream(TaskError):
    """Found the end of a stream of results although not all are ready."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is registered in the app."""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AlreadyRegistered(TaskError):
    """The task is already registered."""


class TimeoutError(TaskError):  # noqa: A001 - Celery's public name
    """The result was not ready within the time that the caller gave."""


class MaxRetriesExceededError(TaskError):
    """The task has used up its retries; `task_args` and `task_kwargs` say with which arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args: Any = kwargs.pop("task_args", [])
        self.task_kwargs: Any = kwargs.pop("task_kwargs", {})
        super().__init__(*args)


class RemoteError(TaskError):
    """An exception of the worker whose class this process does not know or does not trust; the text is kept.

    `module` and `name` are the class as the worker named it, `arguments` what it was made of.
    """

    def __init__(self, module: str = "", name: str = "", arguments: Any = ()) -> None:
        super().__init__(module, name, arguments)
        self.module = module
        self.name = name
        self.arguments = arguments

    def __str__(self) -> str:
        qualified = f"{self.module}.{self.name}" if self.module else self.name
        text = ", ".join(map(str, self.arguments)) if isinstance(self.arguments, (list, tuple)) else str(self.arguments)
        return f"{qualified}: {text}"


class TaskRevokedError(TaskError):
    """The task was revoked, or expired before it began; there is no result."""


class InvalidTaskError(TaskError):
    """The message is not a task message that can be run."""


class ChordError(TaskError):
    """A task of a chord's header failed, so the body does not run."""


class BackendError(UmbelError):
    """The result store failed."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id: str = kwargs.get("task_id", "")
        super().__init__(*args)


class BackendStoreError(BackendError):
    """A result could not be stored, for example because it is larger than `result_max_bytes`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: str = kwargs.get("state", "")
        self.task_id: str = kwargs.get("task_id", "")
        super().__init__(*args)


class OperationalError(UmbelError):
    """The broker or the store cannot be used now: unreachable, refusing, full, locked."""


class EngineBusy(OperationalError):
    """Another process held the database for longer than the deadline."""


class StorageFull(OperationalError):
    """The disk is full, or the file cannot be written; nothing of the call was stored."""


class PublishTimeout(OperationalError):
    """The message was not confirmed within `task_publish_deadline` seconds."""


class Unroutable(OperationalError):
    """The exchange has no queue for the routing key, so the broker could not store the message."""


class TimeLimitExceeded(UmbelError):
    """The task ran longer than its hard time limit and its process was killed; args[0] is the limit in seconds."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args}"


class SoftTimeLimitExceeded(UmbelError):
    """The task ran longer than its soft time limit; raised inside the task, which may clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args}"


class WorkerLostError(UmbelError):
    """The process that ran the task ended before the task did."""


class ProducerLostError(UmbelError):
    """The program that sent a workflow stopped before all of it was sent."""


class Terminated(UmbelError):
    """The task was killed by `revoke(terminate=True)`; args[0] is the signal."""


class WorkerTerminate(SystemExit):
    """Raise in the worker to stop it at once (cold)."""


class WorkerShutdown(SystemExit):
    """Raise in the worker to stop it warm."""


class UmbelWarning(UserWarning):
    """Root of umbel's warnings."""


CeleryWarning = UmbelWarning


class AlwaysEagerIgnored(UmbelWarning):
    """`send_task` sends although `task_always_eager` is on, since only a name is known."""


class DuplicateNodenameWarning(UmbelWarning):
    """Two workers answer to one name."""


class DuplicateTaskNameWarning(UmbelWarning):
    """Two different functions were registered under one task name."""


class FixupWarning(UmbelWarning):
    """Something in the environment had to be put right."""


class NotConfigured(UmbelWarning):
    """No configuration was found."""


class SecurityWarning(UmbelWarning):
    """Something is not safe."""


class CDeprecationWarning(DeprecationWarning):
    """Something will go away."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something will go away later."""


def reraise(tp: type[BaseException], value: BaseException, tb: Any = None) -> None:
    """Raise `value` with traceback `tb` (Celery: `celery.exceptions.reraise`)."""
    del tp
    raise value.with_traceback(tb)
