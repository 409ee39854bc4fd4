"""Which queues a message reaches through a named exchange: direct, topic and fanout, as AMQP has them."""

from __future__ import annotations

from collections.abc import Iterable

#: Routing keys of a topic exchange have at most this many words; longer ones match by their beginning only.
_MOST_WORDS = 255


def resolve(kind: str, key: str, bindings: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of the queues, each once and sorted; `bindings` are (binding key, queue name)."""
    if kind == "fanout":
        return sorted({queue for _, queue in bindings})
    if kind == "topic":
        words = key.split(".")[:_MOST_WORDS]
        return sorted({queue for pattern, queue in bindings if _matches(pattern.split("."), words)})
    return sorted({queue for pattern, queue in bindings if pattern == key})


def _matches(pattern: list[str], words: list[str]) -> bool:
    """Match word by word: `*` is one word, `#` any number. Linear in pattern × words whatever the pattern."""
    reached = {0}
    for part in pattern:
        if part == "#":
            reached = set(range(min(reached), len(words) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(words) and part in {"*", words[at]}}
    return len(words) in reached
