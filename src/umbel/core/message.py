"""What travels: the message, the delivery that a lease makes of it, and what settling a delivery asks of an engine."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

#: The bit of a ticket (`Broker.start`) that says: acknowledged early, once started it must not run again.
EARLY = 1

#: Indices of the members that joined a group later (`Store.grow`) begin here.
GROWN = 1_000_000_000


class Message(msgspec.Struct, gc=False):
    """A task message on its way: where it goes, when it may run, and its opaque bytes.

    `head` is the JSON envelope without the body (headers, properties, content type and encoding: protocol 2);
    `body` the serialized arguments, which only an executor decodes. The other fields repeat what an engine
    needs in order to store and order the message without reading either.
    """

    id: str
    #: Name of the task; the worker that does not know it offers the message to others.
    task: str
    #: Queue, or routing key where `exchange` is not the anonymous one.
    queue: str
    head: bytes
    body: bytes
    #: "" is the anonymous exchange: `queue` names the queue itself.
    exchange: str = ""
    #: Higher runs first within a queue (as on RabbitMQ).
    priority: int = 0
    #: Not to be delivered before this time (epoch seconds); 0 means at once.
    due: float = 0.0
    #: Not to be started after this time (epoch seconds); 0 means never expires.
    expires: float = 0.0
    #: Which follow-up of `id` this is (retries and replacements so far). An engine stores (id, generation) once.
    generation: int = 0


class Delivery(Message, gc=False):
    """A leased message: `tag` is the engine's handle, `token` the attempt that fences off stale writers."""

    tag: Any = None
    token: int = 0
    #: How often a process died while it may have been running this message.
    crashes: int = 0
    #: How often a worker gave it back because it does not know the task.
    offers: int = 0
    #: Non-zero when a former owner marked it as started under early acknowledgement (see Broker.start).
    ticket: int = 0
    #: Who wrote `ticket`, or, where there is none, whose lease ended without being settled; "" if nobody's.
    former_owner: str = ""
    #: When the message was published (epoch seconds); 0 where the broker does not keep it.
    published: float = 0.0
    #: The broker has delivered it before and does not know how far that went: it may have run to its end.
    doubtful: bool = False
    #: How `body` is written: "" as its serializer wrote it; "base64" or "utf-8" (a JSON string) where it still is as it
    #: stands in an envelope of JSON, for whoever asked for it like this (`Lease.encoded`); see `envelope.plain_body`.
    body_encoding: str = ""


class Record(msgspec.Struct, gc=False):
    """The stored state of one task: `meta` is the JSON that Celery's result backends keep."""

    id: str
    state: str
    meta: bytes
    #: When the store may drop it (epoch seconds); 0 means never. Stores that do not tell read 0.
    expires: float = 0.0
    #: Who asked for the result: where results travel as messages (`rpc://`), the queue they are sent to.
    reply_to: str = ""


class End(enum.IntEnum):
    """How a lease ends."""

    #: The message is finished and goes away.
    DONE = 0
    #: Back to the front of its queue as if it had never been leased.
    RELEASE = 1
    #: Back to its queue because the task asked for it (Reject with requeue); not before `due`.
    REQUEUE = 2
    #: Back to its queue, one crash more; not before `due`.
    CRASHED = 3
    #: Back to its queue for another worker that knows the task, one offer more; not before `due`.
    OFFER = 4
    #: Into the dead letters with `reason`.
    DEAD = 5


class Part(msgspec.Struct, gc=False):
    """What one member of a group of tasks (the header of a chord) contributes to what follows them all."""

    group: str
    #: Which member this is, from 0; the first payload stored for an index stays.
    index: int
    payload: bytes
    #: How many members there are; None while that is not known yet. The first size stored stays.
    size: int | None = None
    #: What is to be published when this part completes the group; the payloads are read with `Store.joined`. None
    #: where that is not known: then what another part brought is published.
    body: Message | None = None
    #: The id of the member's task. A repeat has the same one; two members of one index (Celery's `add_to_chord`
    #: makes such) differ in it.
    member: str = ""


def joinable(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts that a group can have. What strangers write need be none: no group has heard of the others."""
    for part in parts:
        if 0 <= part.index < 2 * GROWN and 0 <= (part.size or 0) <= GROWN and is_text(part.group + part.member):
            yield part


def is_text(text: str) -> bool:
    """Tell whether a text has an encoding: JSON can write halves of surrogate pairs."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


class Joined(msgspec.Struct, gc=False):
    """A group that has become complete: the payloads of its members by index, and the body of one of its parts."""

    group: str
    payloads: tuple[bytes, ...]
    body: Message | None = None


def pack_message(message: Message) -> bytes:
    """Return a message as stores keep it."""
    return _pack(message)


def unpack_message(data: bytes) -> Message:
    """Read what `pack_message` wrote."""
    return _unpack(data)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Message).decode


class Settlement(msgspec.Struct, gc=False):
    """The effects of one outcome, applied together or (stale token) not at all."""

    tag: Any
    token: int
    end: End = End.DONE
    #: Result to store; None leaves the store as it is.
    record: Record | None = None
    #: Follow-up messages: retries, callbacks, the next step of a chain.
    publish: tuple[Message, ...] = ()
    due: float = 0.0
    reason: str = ""
    #: What the task contributes to the groups it is a member of.
    parts: tuple[Part, ...] = ()


class Stage(enum.StrEnum):
    """Where a message is, as far as its broker can tell."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    LEASED = "leased"
    STARTED = "started"
    DEAD = "dead"


class Depth(msgspec.Struct, gc=False):
    """How many messages of a queue are ready, waiting for their time, and leased."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0


class DeadLetter(msgspec.Struct, gc=False):
    """A message that will not be run again unless somebody says so, with the reason and when it was buried."""

    number: int
    message: Message
    reason: str
    buried: float
    crashes: int = 0
