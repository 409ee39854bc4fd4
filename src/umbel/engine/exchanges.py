"""Which queues a message reaches through a named exchange: direct, topic and fanout, as AMQP has them."""

from __future__ import annotations

from collections.abc import Iterable

from umbel.core.routing import matches


def resolve(kind: str, key: str, bindings: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of the queues, each once and sorted; `bindings` are (binding key, queue name)."""
    if kind == "fanout":
        return sorted({queue for _, queue in bindings})
    if kind == "topic":
        return sorted({queue for pattern, queue in bindings if matches(pattern, key)})
    return sorted({queue for pattern, queue in bindings if pattern == key})
