"""Queues, exchanges and bindings, declared as Celery 5.7 declares them so that both can."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from umbel.core.queues import COPY_UNUSED, Broadcast, Exchange, Queue
from umbel.engines.rabbitmq.connection import Link
from umbel.engines.rabbitmq.failures import MissingQueue

__all__ = ["arguments_of", "declare_exchange", "declare_queue", "delete_queue", "is_quorum", "missing_queue"]

#: Field of a Queue → argument of the queue, and the factor between their units (kombu: `to_rabbitmq_queue_arguments`).
_ARGUMENTS = (
    ("expires", "x-expires", 1000),
    ("message_ttl", "x-message-ttl", 1000),
    ("max_length", "x-max-length", 1),
    ("max_length_bytes", "x-max-length-bytes", 1),
    ("max_priority", "x-max-priority", 1),
)


def missing_queue(name: str) -> Queue:
    """Return the queue that stands for a name nobody described: exchange and routing key are called as it is."""
    return Queue(name, Exchange(name), name)


def arguments_of(queue: Queue) -> dict[str, Any]:
    """Return the arguments that the queue is declared with; times in whole milliseconds."""
    arguments = dict(queue.queue_arguments or {})
    if isinstance(queue, Broadcast):
        arguments.setdefault("x-expires", int(COPY_UNUSED * 1000))
    for field, name, factor in _ARGUMENTS:
        value = getattr(queue, field)
        if value is not None:
            arguments[name] = int(value * factor)
    return arguments


def is_quorum(queue: Queue | None) -> bool:
    """Tell whether the queue is declared as a quorum queue."""
    return queue is not None and (queue.queue_arguments or {}).get("x-queue-type") == "quorum"


def declare_exchange(link: Link, exchange: Exchange) -> None:
    """Make the exchange exist, or only look where it is `passive`; nothing for the anonymous one and `no_declare`."""
    if not exchange.name or exchange.no_declare or exchange.name.startswith("amq."):
        return
    with link.questions(f"declare the exchange {exchange.name!r}") as channel:
        channel.exchange_declare(
            exchange.name,
            exchange.type,
            passive=exchange.passive,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
            arguments=_table(exchange.arguments),
        )


def declare_queue(link: Link, queue: Queue) -> None:
    """Make the queue, its exchanges and bindings exist."""
    declare_exchange(link, queue.exchange)
    if not queue.no_declare:
        with link.questions(f"declare the queue {queue.name!r}") as channel:
            channel.queue_declare(
                queue.name,
                durable=queue.durable,
                exclusive=queue.exclusive,
                # A busy worker stops consuming for a while, which would delete its copy of a Broadcast.
                auto_delete=queue.auto_delete and not isinstance(queue, Broadcast),
                arguments=arguments_of(queue),
            )
    if queue.exchange.name and not queue.no_declare:
        _bind(link, queue.name, queue.exchange.name, queue.routing_key, queue.binding_arguments)
    for bound in queue.bindings:
        if bound.exchange is None:
            continue
        declare_exchange(link, bound.exchange)
        if not (queue.no_declare and isinstance(queue, Broadcast)):
            _bind(link, queue.name, bound.exchange.name, bound.routing_key, bound.arguments)


def delete_queue(link: Link, queue: Queue) -> None:
    """Delete a queue with all that is in it."""
    with suppress(MissingQueue), link.questions(f"delete the queue {queue.name!r}") as channel:
        channel.queue_delete(queue.name)


def _bind(link: Link, queue: str, exchange: str, key: str, arguments: Mapping[str, Any] | None) -> None:
    with link.questions(f"bind the queue {queue!r} to {exchange!r}") as channel:
        channel.queue_bind(queue, exchange, key, arguments=_table(arguments))


def _table(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(arguments) if arguments else None
