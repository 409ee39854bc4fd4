"""Signals: what programs can hook into, by Celery's names and with Celery's arguments."""

from __future__ import annotations

import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, overload

from umbel.core.errors import UmbelWarning

__all__ = [
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "eventlet_pool_apply",
    "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown",
    "eventlet_pool_started",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_sent",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]

logger = logging.getLogger("umbel.signals")

Receiver = Callable[..., Any]
R = TypeVar("R", bound=Receiver)
#: Pauses between attempts of a receiver that was connected with retry=True (seconds).
_RETRY_PAUSES = (0.2, 0.4, 0.6, 0.8, 1.0)


class _Link:
    """One connected receiver and for whom it listens."""

    __slots__ = ("key", "retry", "sender", "target", "weak")

    def __init__(self, key: object, target: Any, sender: Any, *, weak: bool, retry: bool) -> None:
        self.key = key
        self.target = target
        self.sender = sender
        self.weak = weak
        self.retry = retry

    def receiver(self) -> Receiver | None:
        """Return the receiver; None once it is gone."""
        found: Receiver | None = self.target() if self.weak else self.target
        return found

    def hears(self, sender: object) -> bool:
        """Tell whether the receiver wants what `sender` sends."""
        wanted = self.sender
        return wanted is None or wanted is sender or (isinstance(wanted, str) and wanted == sender)


class Signal:
    """A named occasion to which receivers connect (Celery: `celery.utils.dispatch.Signal`).

    Receivers are called as `receiver(signal=, sender=, **named)` and must accept `**kwargs`. What they raise is
    logged and goes no further. `receivers` is empty as long as nobody listens, so that
    senders look at it first and pay nothing.
    """

    def __init__(
        self, name: str = "", providing_args: object = None, *, missing: str = "", strict: bool = False
    ) -> None:
        self.name = name
        self.receivers: tuple[_Link, ...] = ()
        self.providing_args: set[str] = set(providing_args) if isinstance(providing_args, (list, tuple, set)) else set()
        self._missing = missing
        self._strict = strict
        self._lock = threading.Lock()

    @overload
    def connect(
        self, receiver: R, /, sender: Any = ..., weak: bool = ..., dispatch_uid: object = ..., retry: bool = ...
    ) -> R: ...

    @overload
    def connect(
        self, /, *, sender: Any = ..., weak: bool = ..., dispatch_uid: object = ..., retry: bool = ...
    ) -> Callable[[R], R]: ...

    def connect(
        self,
        receiver: Any = None,
        /,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: object = None,
        retry: bool = False,
    ) -> Any:
        """Call `receiver` whenever the signal is sent, by `sender` only if one is given; also a decorator.

        A weak connection ends with its receiver. Connecting twice (same receiver or `dispatch_uid`, same sender)
        counts once. With `retry` a receiver that raises is called again a few times.
        """
        if receiver is None:

            def decorate(function: R) -> R:
                return self.connect(function, sender, weak, dispatch_uid, retry)

            return decorate
        if not callable(receiver):
            raise TypeError(f"signal {self.name}: a receiver must be callable, not {receiver!r}")
        if self._missing:
            warnings.warn(f"the signal {self.name} is never sent: {self._missing}", UmbelWarning, stacklevel=2)
        key = (dispatch_uid if dispatch_uid is not None else _identity(receiver), _identity(sender))
        target = _reference(receiver, self._drop_dead) if weak else receiver
        link = _Link(key, target, sender, weak=weak, retry=retry)
        with self._lock:
            if all(other.key != key for other in self.receivers):
                self.receivers = (*self.receivers, link)
        return receiver

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: object = None
    ) -> bool:
        """End a connection; return whether there was one. `weak` is ignored, as in Celery."""
        del weak
        key = (dispatch_uid if dispatch_uid is not None else _identity(receiver), _identity(sender))
        with self._lock:
            kept = tuple(link for link in self.receivers if link.key != key)
            found = len(kept) != len(self.receivers)
            self.receivers = kept
        return found

    def has_listeners(self, sender: Any = None) -> bool:
        """Tell whether anybody would hear `sender`."""
        return any(link.hears(sender) and link.receiver() is not None for link in self.receivers)

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:
        """Call the receivers in the order of their connection; return (receiver, its answer or exception) pairs."""
        answers: list[tuple[Receiver, Any]] = []
        for link in self.receivers:
            receiver = link.receiver() if link.hears(sender) else None
            if receiver is not None:
                answers.append((receiver, self._call(link, receiver, sender, named)))
        return answers

    send_robust = send

    def _call(self, link: _Link, receiver: Receiver, sender: Any, named: dict[str, Any]) -> Any:
        pauses = iter(_RETRY_PAUSES if link.retry else ())
        while True:
            try:
                return receiver(signal=self, sender=sender, **named)
            except Exception as exc:
                if self._strict:
                    raise
                pause = next(pauses, None)
                if pause is None:
                    logger.exception("a receiver of the signal %s failed: %r", self.name, receiver)
                    return exc
                time.sleep(pause)

    def _drop_dead(self, reference: object) -> None:
        # Without the lock: the garbage collector may call this in a thread that holds it.
        self.receivers = tuple(link for link in self.receivers if link.target is not reference)

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _identity(target: Any) -> object:
    if isinstance(target, (str, bytes)) or target is None:
        return target
    if hasattr(target, "__func__"):
        return id(target.__self__), id(target.__func__)
    return id(target)


def _reference(receiver: Any, on_end: Callable[[Any], None]) -> Any:
    if hasattr(receiver, "__func__") and hasattr(receiver, "__self__"):
        return weakref.WeakMethod(receiver, on_end)
    return weakref.ref(receiver, on_end)


_NO_BEAT = "umbel has no scheduler of periodic tasks yet"
_NO_EVENTLET = "umbel has no eventlet pool; use the threads or asyncio pool"

before_task_publish = Signal("before_task_publish")
after_task_publish = Signal("after_task_publish")
task_sent = Signal("task_sent")
task_received = Signal("task_received")
task_prerun = Signal("task_prerun")
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_retry = Signal("task_retry")
task_failure = Signal("task_failure")
task_internal_error = Signal("task_internal_error")
task_revoked = Signal("task_revoked")
task_rejected = Signal("task_rejected")
task_unknown = Signal("task_unknown")
#: Sent before tasks are looked for in modules; what a receiver raises is raised by the sender.
import_modules = Signal("import_modules", strict=True)
celeryd_init = Signal("celeryd_init")
celeryd_after_setup = Signal("celeryd_after_setup")
worker_init = Signal("worker_init")
worker_before_create_process = Signal("worker_before_create_process")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown")
worker_ready = Signal("worker_ready")
heartbeat_sent = Signal("heartbeat_sent")
worker_shutting_down = Signal("worker_shutting_down")
worker_shutdown = Signal("worker_shutdown")
beat_init = Signal("beat_init", missing=_NO_BEAT)
beat_embedded_init = Signal("beat_embedded_init", missing=_NO_BEAT)
eventlet_pool_started = Signal("eventlet_pool_started", missing=_NO_EVENTLET)
eventlet_pool_preshutdown = Signal("eventlet_pool_preshutdown", missing=_NO_EVENTLET)
eventlet_pool_postshutdown = Signal("eventlet_pool_postshutdown", missing=_NO_EVENTLET)
eventlet_pool_apply = Signal("eventlet_pool_apply", missing=_NO_EVENTLET)
setup_logging = Signal("setup_logging")
after_setup_logger = Signal("after_setup_logger")
after_setup_task_logger = Signal("after_setup_task_logger")
user_preload_options = Signal("user_preload_options", missing="umbel's command line takes no options of your own yet")
