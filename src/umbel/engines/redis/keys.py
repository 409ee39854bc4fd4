"""Names of keys and channels: kombu's own for what Celery shares, `umbel.*` for the rest. All are bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

__all__ = ["DUE_CHANNEL", "SEPARATOR", "STEPS", "Keys"]

#: Stands between a queue's name and its priority step, and between the parts of a binding (kombu).
SEPARATOR = b"\x06\x16"
#: kombu's default `priority_steps`; a lower step is served first.
STEPS = (0, 3, 6, 9)
DUE_CHANNEL = b"umbel.due"
_MOST_KEPT = 256


class Keys:
    """The names of one engine; `prefix` stands in front of every key and channel."""

    def __init__(
        self,
        prefix: bytes = b"",
        steps: Sequence[int] = STEPS,
        sep: bytes = SEPARATOR,
        fanout: bytes = b"/0.",
        *,
        fanout_patterns: bool = True,
    ) -> None:
        self.prefix = prefix
        #: What kombu puts in front of a fanout exchange's name, and whether the routing key follows it.
        self.fanout, self.fanout_patterns = fanout, fanout_patterns
        self.steps = tuple(sorted(steps)) or (0,)
        self.sep = sep
        #: What `lists_of` has answered: a worker asks for the same queues with every message.
        self._lists: dict[tuple[str, ...], tuple[tuple[str, bytes], ...]] = {}

    def list_of(self, queue: str, priority: int = 0) -> bytes:
        """Return the list (without prefix) that keeps a queue's messages of this priority: the highest step below it.

        As in kombu, priorities outside 0…9 count as the nearest one.
        """
        place = bisect_right(self.steps, max(0, min(priority, 9))) - 1
        return self.at_step(queue, self.steps[max(place, 0)])

    def at_step(self, queue: str, step: int) -> bytes:
        """Return the list (without prefix) of one step; step 0 is called as the queue."""
        name = queue.encode()
        return name if not step else b"%b%b%d" % (name, self.sep, step)

    def queue_of(self, name: bytes) -> str:
        """Return the queue that a list belongs to."""
        queue, separator, step = name.rpartition(self.sep)
        if separator and step.isdigit() and int(step) in self.steps:
            return queue.decode("utf-8", "surrogateescape")
        return name.decode("utf-8", "surrogateescape")

    def lists_of(self, queues: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
        """Return (queue, list) of every step of the queues, steps that are served first in front."""
        names = tuple(queues)
        found = self._lists.get(names)
        if found is None:
            found = tuple([(queue, self.at_step(queue, step)) for step in self.steps for queue in names])
            if len(self._lists) >= _MOST_KEPT:
                self._lists.clear()
            self._lists[names] = found
        return found

    def key(self, name: bytes) -> bytes:
        """Return the full key of a name."""
        return self.prefix + name

    def held(self, owner: str, name: bytes) -> bytes:
        """Return the key of what `owner` has leased from a list: number → envelope."""
        return b"%bumbel.held.%b%b%b" % (self.prefix, owner.encode(), SEPARATOR, name)

    def large(self, number: int) -> bytes:
        """Return the key of a list that holds one large message, leased under this number."""
        return b"%bumbel.large.%d" % (self.prefix, number)

    def staged(self, owner: str, name: bytes) -> bytes:
        """Return the key of the list into which a waiting connection of `owner` moves a message."""
        return b"%bumbel.staged.%b%b%b" % (self.prefix, owner.encode(), SEPARATOR, name)

    def of_owner(self, kind: str, owner: str) -> bytes:
        """Return the key `umbel.<kind>.<owner>`."""
        return b"%bumbel.%b.%b" % (self.prefix, kind.encode(), owner.encode())

    def binding(self, exchange: str) -> bytes:
        """Return the key of kombu's set of bindings of an exchange."""
        return b"%b_kombu.binding.%b" % (self.prefix, exchange.encode())

    def channel(self, exchange: str, routing_key: str = "") -> bytes:
        """Return the channel on which kombu publishes what is sent to a fanout exchange."""
        name = b"%b%b%b" % (self.prefix, self.fanout, exchange.encode())
        return b"%b/%b" % (name, routing_key.encode()) if routing_key and self.fanout_patterns else name

    def fanout_queues(self, exchange: str) -> bytes:
        """Return the key of the set of queues that are bound to a fanout exchange here."""
        return b"%bumbel.fanout.%b" % (self.prefix, exchange.encode())

    def permanent_binding(self, exchange: str) -> bytes:
        """Return the key of the bindings that kombu 5.7 never sweeps away."""
        return b"%b_kombu.binding_permanent.%b" % (self.prefix, exchange.encode())
