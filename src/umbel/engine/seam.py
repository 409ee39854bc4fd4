"""The protocols an engine fulfils. Every call takes and returns batches; `now` is epoch seconds, given by the caller.

Engines are synchronous, thread-safe (each thread may get a connection of its own) and reconnect after a fork.
They raise `umbel.core.errors.OperationalError` (or a subclass) when they cannot do their work now, and never
block longer than their deadline. They neither log nor retry on behalf of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from umbel.core.message import DeadLetter, Delivery, Depth, Joined, Message, Part, Record, Settlement, Stage
from umbel.core.queues import Queue


@dataclass(frozen=True)
class Caps:
    """What an engine can do; callers ask this and never the engine's name."""

    #: A transactional, B confirmed, C memory first, D bridged, - nothing outlives the process.
    durability: str
    #: One line for the start banner: what a crash and what a power cut may take.
    durability_text: str
    #: Other processes can share it.
    shared: bool = True
    #: The broker can tell where a message is (`find`).
    find: bool = True
    #: Waiting messages can be removed one by one (`Store.revoke` ends them at once).
    remove: bool = True
    #: Publishing a stored (id, generation) again adds nothing.
    once: bool = True
    #: How many messages for one queue `publish` stores in one step, whenever its process dies; None: any number, also
    #: for several queues. (Large ones, a megabyte in all, may take several steps.)
    step: int | None = None
    #: "exact": any integer, higher first. "steps": kombu's lists on Redis, the lower step first. "declared":
    #: higher first, in queues that were declared with a highest priority.
    priorities: str = "exact"
    #: `Lease.without` leaves messages where they are; elsewhere they go round and come back within a second.
    skips: bool = True
    #: `recover` takes over what dead owners held; elsewhere the broker gives that back by itself.
    recovers: bool = True
    #: `start` remembers tickets, and `adopt` takes in messages that another broker has let go.
    remembers: bool = True
    #: `depth` tells scheduled and leased messages too.
    counts: bool = True
    #: The store joins groups and keeps pieces of workflows.
    plans: bool = True
    #: `adopt` (`start`) looks whether anything is revoked: asking the store right after it costs nothing if that is so.
    adopt_looks: bool = False
    start_looks: bool = False
    #: Whose clock decides when messages are due and leases lapse: "caller" (any `now` is believed) or "server".
    clock: str = "caller"
    #: Whose clock decides when stored states are over.
    expiry: str = "caller"


class Lease(NamedTuple):
    """What a consumer asks for: up to `limit` messages of `queues`, held by `owner` for `seconds`."""

    queues: tuple[str, ...]
    owner: str
    limit: int
    seconds: float
    #: Names of tasks that are left to other consumers.
    without: tuple[str, ...] = ()
    #: For `recover`: owners that the caller knows to be dead, so that their leases count as lapsed.
    dead: tuple[str, ...] = ()
    #: The caller comes back at once, with a limit of 0 if it wants nothing more: until then a message or two that come
    #: meanwhile may be kept for it, and large ones be on their way to it, which that call returns.
    again: bool = False
    #: Large bodies may come as they stand in their envelopes (`Delivery.body_encoding`): the caller does not read them.
    encoded: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of a batch that was not stored, and why (an exception ready to be raised)."""

    index: int
    error: Exception


class Broker(Protocol):
    """Where messages wait."""

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make the queues and their bindings exist; of a queue with `no_declare` only the exchanges."""

    def remove(self, queues: Sequence[Queue]) -> None:
        """Delete queues that are this worker's alone (its copies of a Broadcast), with all that is in them.

        A copy that nobody removes goes when no owner that leases from it has been alive for `COPY_UNUSED` seconds.
        """

    def publish(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Store the messages in one step; on return all but the refused ones are stored.

        A message whose (id, generation) is stored already counts as stored. Through a named exchange a message
        goes to every bound queue; with no queue bound it is refused as Unroutable. A broker that does not remember
        (`caps.remembers`) keeps the crash and offer counts of a Delivery that is published.
        """

    def lease(self, lease: Lease, now: float, wait: float = 0.0) -> list[Delivery]:
        """Take up to `limit` ready messages, oldest first within a priority, higher priority first.

        Messages that are due become ready by themselves. With nothing ready, wait up to `wait` seconds for a
        message, a due time or `wake`; return [] after that. Leasing also keeps `owner` alive for `seconds`.
        """

    def lease_scheduled(self, lease: Lease, now: float) -> list[Delivery]:
        """Take up to `limit` messages that are not due yet, the next ones first: to end them, not to run them.

        Where what waits for its time is out of reach (RabbitMQ) there are none.
        """

    def wake(self) -> None:
        """End every `lease` that waits in this process; safe from any thread."""

    def start(self, owner: str, tickets: Sequence[tuple[Any, int, int]], now: float) -> list[Any]:
        """Remember durably that (tag, token, ticket) are about to start and must not run twice.

        Return the tags whose lease is not held any more; those must not be started.
        """

    def extend(self, owner: str, seconds: float, now: float) -> bool:
        """Keep every lease of `owner` for `seconds` from now; False when they have been given to others.

        With 0 seconds it leases no more: what it holds goes back, or to whoever recovers it.
        """

    def settle(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """End leases (`record` and `publish` are somebody else's work); return the tags that were stale."""

    def recover(self, lease: Lease, now: float) -> list[Delivery]:
        """Take over messages whose owner let its lease lapse or is known to be dead; the token grows by one.

        What comes back is leased to `lease.owner`, carries `ticket` and as `former_owner` who wrote it (an heir
        that wrote none may have come between), and must be settled.
        """

    def adopt(self, lease: Lease, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Store messages as already leased to `lease.owner`, tickets and crash counts kept; return them as held here.

        For a broker that cannot remember what has started: another one keeps that for it (`caps.remembers`). Done
        again by the same owner it only renews the ticket. One whose (id, generation, queue) was adopted before and is
        held by another owner is left out, unless its token is above that of the lease, which is over then. So is one
        that was published here, where publishing knows a message again (`caps.once`); elsewhere that is another one.
        """

    def depth(self, queues: Sequence[str], now: float) -> dict[str, Depth]:
        """Count the messages of each queue; no names means every queue that the broker knows."""

    def purge(self, queues: Sequence[str]) -> int:
        """Delete the ready and scheduled messages of the queues; return how many."""

    def find(self, ids: Collection[str], now: float) -> dict[str, Stage]:
        """Tell where the messages are; ids that the broker does not hold are left out."""


class DeadLetters(Protocol):
    """Messages that were given up, to be looked at and sent again."""

    def bury(self, message: Message, reason: str, now: float) -> None:
        """Put a message that was never leased (malformed input) among the dead."""

    def browse(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters with a number above `after`, oldest first."""

    def pick(self, numbers: Collection[int] | None, ids: Collection[str] | None) -> list[DeadLetter]:
        """Return the letters with these numbers or task ids; both None means all."""

    def revive(self, numbers: Collection[int], now: float) -> int:
        """Send letters again as fresh messages (crash count 0, stored result forgotten); return how many."""

    def drop(self, numbers: Collection[int]) -> int:
        """Delete letters for good; return how many."""


class Watch(Protocol):
    """One process' wait for results: what it reports is a hint, the truth is `Store.get`."""

    def add(self, ids: Collection[str]) -> bool | None:
        """Begin to watch the ids. True says that the next wait looks for states that they have already."""

    def discard(self, ids: Collection[str]) -> None:
        """Stop watching the ids."""

    def wait(self, timeout: float) -> bool:
        """Wait until a watched result may have changed (True) or the time is over (False)."""

    def wake(self) -> None:
        """End a wait of another thread."""

    def close(self) -> None:
        """Let go of sockets and files."""


class Store(Protocol):
    """Where results, revocations and the parts of groups live.

    A group is open from its first part (or `expect`) until all its members have joined; however long that takes,
    nothing of it expires. Members are counted by index, never by value: repeats change nothing. Whoever completes
    the group is told, once; only a repeat of that very call (a settlement done again after a crash) is told again,
    until `confirm` says that the body is published. So a crash in between neither loses the body nor, its id
    being always the same, runs it twice. The payloads stay until `forget_groups`.
    """

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        """Store states; a terminal state never changes. Return the ids that were refused for that reason."""

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        """Read states; unknown and expired ids are left out."""

    def watch(self) -> Watch:
        """Open a watch for this process."""

    def forget(self, ids: Sequence[str]) -> None:
        """Delete states."""

    def expire(self, now: float, limit: int = 1000) -> int:
        """Drop up to `limit` records, revocations, pieces and groups whose time is over; return how many."""

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        """Mark tasks as revoked for good. Return the ids that this ended at once.

        Where the engine is also the broker, a message that waits is removed and its REVOKED record stored in the
        same step; one that something may follow from (`core.followers`) becomes ready instead, so that a worker tells
        whoever waits for it. A leased one is only marked, and the worker that holds it ends it if it has not started.
        The mark itself is kept until `record.expires` (0: for ever).
        """

    def revoked(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids are marked as revoked."""

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        """Store parts in one step; return the groups that this completed, each once.

        The caller publishes their bodies and then calls `confirm`. An index outside the group's size is ignored.
        With `anew` the groups of these parts are forgotten first, in the same step: who says so of a group of one,
        with a `now` that is still to come, again and again, is alive until `unconfirmed` finds that group.
        """

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Tell how many members each group has, once that is known; return the groups that this completed.

        They come with a body that one of their parts brought; publish it and `confirm`, as after `join`.
        """

    def confirm(self, groups: Collection[str]) -> None:
        """Remember that the bodies of these complete groups have been published: nobody is told again."""

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        """Return groups that were complete since before this time (epoch seconds) and not confirmed, without payloads.

        Whoever was told of them may have died before it published their bodies. Groups without a body are left out.
        """

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the payloads, by index, of those groups that are complete; they are what the body works on."""

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Delete the parts of groups. Until `expires` (0: not at all) late repeats find the group closed."""

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        """Let a group have `by` members more than `expect` says (or will say); return the index of the first of them.

        Their indices begin at `GROWN`, so that they are known before the size is. A repeat with the same `key`
        changes nothing and returns the same index; with none ("") each call grows the group. One that is complete
        does not grow: parts of the index that is returned are ignored like all late ones.
        """

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        """Keep pieces of workflows, for messages that name them by key. What is kept under a key already stays.

        They may go at `expires`; with 0, however long it takes until they are taken, they do not expire before.
        """

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        """Read pieces, which may go at `expires` from now on (0: never); unknown and expired keys are left out."""

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        """Keep what `GroupResult.save` writes, until `expires` (0: for ever); saved again, it is replaced."""

    def saved_group(self, group: str, now: float) -> bytes | None:
        """Return what was saved; None when that is nothing, or over."""

    def delete_group(self, group: str) -> None:
        """Delete what was saved; parts that have joined stay."""


class Listener(Protocol):
    """One process' ear on the bus."""

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        """Return (topic, payload) pairs sent since the last call; wait up to `timeout` seconds for one."""

    def wake(self) -> None:
        """End a `receive` of another thread."""

    def close(self) -> None:
        """Stop listening."""


class Bus(Protocol):
    """Fan-out of control messages and their replies; what is sent while nobody listens is gone."""

    def send(self, topic: str, payloads: Sequence[bytes], now: float) -> None:
        """Send payloads to every listener of `topic`."""

    def listen(self, topics: Sequence[str]) -> Listener:
        """Open a listener that hears what is sent from now on."""


class Atomic(Protocol):
    """Broker and store in one database: the whole outcome is one transaction."""

    def commit(self, owner: str, settlements: Sequence[Settlement], now: float) -> list[Any]:
        """Apply record, publish, parts and end of lease of each settlement together; return the stale tags.

        Of a stale settlement nothing is applied. The body of a part that completes its group is published and
        confirmed in the same step, so nobody needs to be told; a body that cannot be routed becomes a dead letter.
        Where the last part brings no body, the group may be left to whoever asks for `unconfirmed` ones.
        """


class Pieces(NamedTuple):
    """What `FollowUps.go_on` does with pieces of workflows (`Store.put_plans`) on the way."""

    #: Called while the call is on its way: does other work, and names a piece that is to be read too ("": none).
    #: It must not raise, nor use the engine.
    wanted: Callable[[], str]
    #: Pieces that were read like this before and have been used for what is stored now: the store drops them at
    #: `expires` (0: never).
    used: Sequence[str] = ()
    expires: float = 0.0


class Gone(NamedTuple):
    """What `FollowUps.go_on` says."""

    #: The follow-up is leased.
    held: bool
    #: The piece that was wanted, unless the store has it no more.
    piece: bytes | None = None


class FollowUps(Protocol):
    """Commits an outcome and leases what follows from it in one step. Any process of the owner may do so."""

    def leased(self, settlement: Settlement) -> Delivery | None:
        """Return the only message that follows as `go_on` leases it; None where it has to go through its queue."""

    def go_on(
        self, owner: str, lane: str, ticket: int, settlement: Settlement, now: float, pieces: Pieces | None = None
    ) -> Gone:
        """Do what `Atomic.commit` does; tell whether the follow-up is leased now, and started under `ticket`.

        It goes into its queue instead while others wait there or anything is revoked. Tickets of a lane grow. A call
        that repeats the last one of its lane, from whichever process, changes nothing and answers as that did.
        """

    def pack_tag(self, tag: Any) -> bytes:
        """Return the tag of a delivery as another process can read it."""

    def unpack_tag(self, data: bytes) -> Any:
        """Read what `pack_tag` wrote."""


@dataclass(frozen=True)
class Engine:
    """One opened technology. Parts that it does not provide are None."""

    url: str
    caps: Caps
    broker: Broker | None = None
    store: Store | None = None
    bus: Bus | None = None
    dead: DeadLetters | None = None
    atomic: Atomic | None = None
    #: To be used where there is `atomic`.
    follow_ups: FollowUps | None = None
    #: Where results travel as messages (`rpc://`): takes the name of a queue that results will be sent to, and after
    #: how many seconds without use it may go (0: never); makes it exist before the next message is published.
    replies: Callable[[str, float], None] | None = None

    def close(self) -> None:
        """Let go of every connection of this process."""
        for part in {id(p): p for p in (self.broker, self.store, self.bus, self.dead) if p is not None}.values():
            close = getattr(part, "close", None)
            if close is not None:
                close()


class Factory(Protocol):
    """What an engine module exports under the name `open_engine`."""

    def __call__(self, url: str, options: Mapping[str, Any]) -> Engine:
        """Open the engine at `url`; `options` are `broker_transport_options` or those of the result backend."""
