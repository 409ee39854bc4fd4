"""Queues and routes of one app, made from its settings when they are first needed (Celery: `app.amqp`)."""

from __future__ import annotations

from typing import Any

from umbel.app.loading import load_symbol
from umbel.core.errors import NotSupportedError
from umbel.core.queues import Queue, Queues
from umbel.core.routing import Router

__all__ = ["Amqp"]

_SETTINGS = (
    "task_queues", "task_routes", "task_default_queue", "task_default_queue_type", "task_default_exchange",
    "task_default_exchange_type", "task_default_routing_key", "task_create_missing_queues",
    "task_create_missing_queue_type", "task_create_missing_queue_exchange_type", "task_queue_max_priority",
)  # fmt: skip
_TRANSPORT = frozenset(
    {"Connection", "Consumer", "Producer", "TaskConsumer", "producer_pool", "send_task_message", "create_task_message"}
)


class Amqp:
    """`queues` and `router`, renewed when a setting about them has changed."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._version = -1
        self._values: tuple[Any, ...] = ()
        self._queues = Queues()
        self._router: Router | None = None

    @property
    def queues(self) -> Queues:
        """The queues of `task_queues`, or the default queue."""
        self._renew()
        return self._queues

    @property
    def router(self) -> Router:
        """What finds the queue of a task."""
        self._renew()
        assert self._router is not None
        return self._router

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks that nothing routes elsewhere."""
        queue = self._app.conf.task_default_queue
        return self.queues[queue.name if isinstance(queue, Queue) else queue]

    @property
    def routes(self) -> tuple[Any, ...]:
        """The prepared `task_routes`."""
        return self.router.routers

    def flush_routes(self) -> None:
        """Forget looked-up routes."""
        self.router.flush()

    def _renew(self) -> None:
        conf = self._app.conf
        if conf.version == self._version:
            return
        values = tuple(conf[name] for name in _SETTINGS)
        if self._router is None or values != self._values:
            self._queues = Queues.from_settings(conf)
            self._router = Router(conf.task_routes, self._queues, conf.task_default_queue, load_symbol)
            self._values = values
        # Read after the values: the first look at a setting loads the configuration.
        self._version = conf.version

    def __getattr__(self, name: str) -> Any:
        if name in _TRANSPORT:
            raise NotSupportedError(f"app.amqp.{name} is a part of kombu, which umbel does not use: see app.broker")
        raise AttributeError(f"app.amqp has no attribute {name!r}")
