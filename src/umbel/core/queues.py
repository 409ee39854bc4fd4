"""Queues, exchanges and bindings as values, and the set of queues that an app knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from uuid import uuid4

from umbel.core.errors import ImproperlyConfigured, NotSupportedError, QueueNotFound

__all__ = ["COPY_UNUSED", "Broadcast", "Exchange", "Queue", "Queues", "binding"]

_EXCHANGE_TYPES = ("direct", "topic", "fanout")
#: How long a worker's copy of a Broadcast outlives a worker that could not remove it (seconds).
COPY_UNUSED = 3600.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where messages are sent to be passed on to the queues bound to it (kombu: `Exchange`).

    `type` is direct, topic or fanout. The empty name is the default exchange: its routing key is a queue's
    name.
    """

    name: str = ""
    type: str = "direct"
    durable: bool = field(default=True, kw_only=True)
    auto_delete: bool = field(default=False, kw_only=True)
    delivery_mode: int | str | None = field(default=None, kw_only=True)
    arguments: Mapping[str, Any] | None = field(default=None, kw_only=True)
    passive: bool = field(default=False, kw_only=True)
    no_declare: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.type not in _EXCHANGE_TYPES:
            raise NotSupportedError(
                f"exchange {self.name!r} has the type {self.type!r}; umbel knows {', '.join(_EXCHANGE_TYPES)}"
            )

    def __hash__(self) -> int:
        return hash((self.name, self.type))

    def __str__(self) -> str:
        return f"Exchange {self.name or repr('')}({self.type})"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a new dict."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class binding:  # noqa: N801 - kombu's public name
    """One way from an exchange to a queue (kombu: `binding`)."""

    exchange: Exchange | None = None
    routing_key: str = ""
    arguments: Mapping[str, Any] | None = None
    unbind_arguments: Mapping[str, Any] | None = None

    def __hash__(self) -> int:
        return hash((self.exchange, self.routing_key))


def _exchange(value: Exchange | str | None) -> Exchange:
    if value is None:
        return Exchange("")
    return Exchange(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and how messages get into it (kombu: `Queue`). Times are seconds, sizes bytes.

    `exchange` may be an Exchange or its name; a list of `binding` values may stand in its place.
    """

    name: str = ""
    exchange: Any = None
    routing_key: str = ""
    bindings: tuple[binding, ...] = field(default=(), kw_only=True)
    durable: bool = field(default=True, kw_only=True)
    exclusive: bool = field(default=False, kw_only=True)
    auto_delete: bool = field(default=False, kw_only=True)
    no_ack: bool = field(default=False, kw_only=True)
    alias: str | None = field(default=None, kw_only=True)
    expires: float | None = field(default=None, kw_only=True)
    message_ttl: float | None = field(default=None, kw_only=True)
    max_length: int | None = field(default=None, kw_only=True)
    max_length_bytes: int | None = field(default=None, kw_only=True)
    max_priority: int | None = field(default=None, kw_only=True)
    queue_arguments: Mapping[str, Any] | None = field(default=None, kw_only=True)
    binding_arguments: Mapping[str, Any] | None = field(default=None, kw_only=True)
    consumer_arguments: Mapping[str, Any] | None = field(default=None, kw_only=True)
    no_declare: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        exchange: Any = self.exchange
        bindings = tuple(self.bindings)
        if isinstance(exchange, (list, tuple, set, frozenset)):
            bindings += tuple(exchange)
            exchange = None
        object.__setattr__(self, "exchange", _exchange(exchange))
        object.__setattr__(self, "bindings", bindings)
        if self.exclusive:
            object.__setattr__(self, "auto_delete", True)

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return f"Queue {self.name} -> {self.exchange} -> {self.routing_key}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a new dict, exchange and bindings as the values they are."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def routes(self) -> tuple[tuple[str, str, str], ...]:
        """Return how messages get in: (exchange name, exchange type, routing key) of each binding."""
        own = ((self.exchange.name, self.exchange.type, self.routing_key),) if self.exchange.name else ()
        more = tuple(
            (bound.exchange.name, bound.exchange.type, bound.routing_key) for bound in self.bindings if bound.exchange
        )
        return own + more


@dataclass(frozen=True, slots=True)
class Broadcast(Queue):
    """A queue of which every worker has a copy of its own, so that each runs every message (kombu: `Broadcast`).

    `name` is what tasks are routed to and what `-Q` takes: it becomes the `alias`, and the name of a fanout exchange.
    The queue itself is called `bcast.<uuid>`, another one in each process that makes the value, or as `queue` says;
    `unique` puts a UUID behind that. A copy goes when its worker ends.
    """

    exchange: Any = None
    auto_delete: bool = field(default=True, kw_only=True)
    queue: str | None = field(default=None, kw_only=True)
    unique: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not (self.alias and self.exchange is not None and self.queue == self.name and not self.unique):
            self._call_copy()
        # slots=True makes a new class, so the argument-less super() would look in the wrong one
        Queue.__post_init__(self)

    def _call_copy(self) -> None:
        """Turn the name of all copies into the alias, and find one for this copy."""
        name = self.queue or f"bcast.{uuid4()}"
        if self.unique:
            name = f"{self.queue or 'bcast'}.{uuid4()}"
        made = {"alias": self.alias or self.name, "exchange": self.exchange, "name": name, "queue": name}
        if self.exchange is None:
            made["exchange"] = Exchange(self.name, type="fanout")
        for field_name, value in {**made, "unique": False}.items():
            object.__setattr__(self, field_name, value)

    __hash__ = Queue.__hash__


class Queues(dict[str, Queue]):
    """Queues by name (Celery: `app.amqp.Queues`); reading a name that is missing makes the queue, where
    that is allowed.

    `queues` is a list of Queue, or a dict of names with a Queue or its options. `max_priority` and
    `default_*` are
    given to queues that do not say themselves. `consume_from` are those that a worker reads.
    """

    def __init__(
        self,
        queues: Iterable[Queue] | Mapping[str, Any] | None = None,
        default_exchange: Exchange | None = None,
        create_missing: bool = True,
        *,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        self.aliases: dict[str, Queue] = {}
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.max_priority = max_priority
        self._selected: dict[str, Queue] | None = None
        if isinstance(queues, Mapping):
            for name, options in queues.items():
                self.add(
                    options if isinstance(options, Queue) else name,
                    **({} if isinstance(options, Queue) else options or {}),
                )
        else:
            for queue in queues or ():
                self.add(queue)

    def __missing__(self, name: str) -> Queue:
        found = self.aliases.get(name)
        if found is not None:
            return found
        if not self.create_missing:
            raise QueueNotFound(self._unknown(name))
        return self._keep(self.new_missing(name))

    def _unknown(self, name: str) -> str:
        remedy = f"add Queue({name!r}) to task_queues, or set task_create_missing_queues to True"
        near = nearest_name(name, [*self, *self.aliases])
        return (
            f"there is no queue {name!r} in task_queues"
            + (f"; did you mean {near!r}? Else" if near else ":")
            + f" {remedy}"
        )

    def add(self, queue: Queue | str, **options: Any) -> Queue:
        """Add a queue and return it as it is kept; for a name, `options` are those of `add_compat`."""
        if not isinstance(queue, Queue):
            return self.add_compat(queue, **options)
        if options:
            raise ImproperlyConfigured(
                f"options {sorted(options)} beside a Queue: write them into Queue({queue.name!r}, …)"
            )
        return self._keep(queue)

    def add_compat(self, name: str, **options: Any) -> Queue:
        """Add a queue that is described by a dict: `exchange`, `exchange_type`, `routing_key` or
        `binding_key`, …
        """
        kind = options.pop("exchange_type", None)
        key = options.pop("binding_key", None)
        key = options.pop("routing_key", None) or key or name
        exchange = options.pop("exchange", None)
        if not isinstance(exchange, Exchange):
            exchange = Exchange(exchange or name, type=kind or "direct")
        known = {item.name for item in fields(Queue)}
        for option in options:
            if option not in known:
                near = nearest_name(option, known)
                raise ImproperlyConfigured(
                    f"queue {name!r} has the unknown option {option!r}" + (f"; did you mean {near!r}?" if near else "")
                )
        return self._keep(Queue(name, exchange, key, **options))

    def _keep(self, queue: Queue) -> Queue:
        if not queue.name:
            raise ImproperlyConfigured("a queue in task_queues has no name")
        queue = self._completed(queue)
        self[queue.name] = queue
        if queue.alias:
            self.aliases[queue.alias] = queue
        return queue

    def _completed(self, queue: Queue) -> Queue:
        changes: dict[str, Any] = {}
        if not queue.exchange.name and not queue.bindings and self.default_exchange is not None:
            changes["exchange"] = self.default_exchange
            if not queue.routing_key:
                changes["routing_key"] = self.default_routing_key or queue.name
        elif not queue.routing_key and queue.exchange.type == "direct":
            changes["routing_key"] = queue.name
        elif not queue.routing_key and queue.exchange.type == "fanout" and self.default_routing_key:
            # No fanout asks for it, but kombu's on Redis is a channel that is named after it.
            changes["routing_key"] = self.default_routing_key
        if self.max_priority is not None and queue.max_priority is None:
            arguments = dict(queue.queue_arguments or {})
            arguments.setdefault("x-max-priority", self.max_priority)
            changes["queue_arguments"] = arguments
        return replace(queue, **changes) if changes else queue

    def new_missing(self, name: str) -> Queue:
        """Return the queue that is made for a name nobody declared: exchange and routing key are called as
        it is.
        """
        arguments = {"x-queue-type": "quorum"} if self.create_missing_queue_type == "quorum" else None
        exchange = Exchange(name, type=self.create_missing_queue_exchange_type or "direct")
        return Queue(name, exchange, name, queue_arguments=arguments)

    @property
    def consume_from(self) -> Mapping[str, Queue]:
        """The queues that a worker reads: the selected ones, or all."""
        return self if self._selected is None else self._selected

    def select(self, include: str | Iterable[str]) -> None:
        """Read only these queues; unknown names are made or raise `QueueNotFound`."""
        if include:
            names = [include] if isinstance(include, str) else list(include)
            self._selected = {self[name].name: self[name] for name in names}

    def select_add(self, queue: Queue | str, **options: Any) -> Queue:
        """Add a queue and read it too."""
        kept = self.add(queue, **options)
        if self._selected is not None:
            self._selected[kept.name] = kept
        return kept

    def deselect(self, exclude: str | Iterable[str]) -> None:
        """Do not read these queues."""
        names = {exclude} if isinstance(exclude, str) else set(exclude or ())
        names |= {self.aliases[name].name for name in names if name in self.aliases}
        if names:
            self._selected = {name: queue for name, queue in self.consume_from.items() if name not in names}

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Return one line for each queue that is read, as a worker shows them at start."""
        lines = [
            f".> {queue.name:<16} exchange={queue.exchange.name}({queue.exchange.type}) key={queue.routing_key}"
            for _, queue in sorted(self.consume_from.items())
        ]
        margin = " " * indent
        text = "\n".join(margin + line for line in lines)
        return text if indent_first else text.removeprefix(margin)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Queues:
        """Return the queues that the settings describe: `task_queues`, or the default queue alone."""
        default = settings["task_default_queue"]
        queues = settings["task_queues"]
        exchange = Exchange(settings["task_default_exchange"], type=settings["task_default_exchange_type"])
        if not queues:
            queues = (default if isinstance(default, Queue) else _default_queue(settings, exchange),)
        return cls(
            queues,
            exchange,
            settings["task_create_missing_queues"],
            create_missing_queue_type=settings["task_create_missing_queue_type"],
            create_missing_queue_exchange_type=settings["task_create_missing_queue_exchange_type"],
            max_priority=settings["task_queue_max_priority"],
            default_routing_key=settings["task_default_routing_key"],
        )


def _default_queue(settings: Mapping[str, Any], exchange: Exchange) -> Queue:
    arguments = {"x-queue-type": "quorum"} if settings["task_default_queue_type"] == "quorum" else None
    return Queue(
        settings["task_default_queue"],
        exchange,
        settings["task_default_routing_key"],
        queue_arguments=arguments,
    )


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like `name`, or None."""
    return next(iter(difflib.get_close_matches(name, list(candidates), n=1)), None)
