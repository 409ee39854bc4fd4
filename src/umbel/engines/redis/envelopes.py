"""Messages as the JSON envelopes of kombu's Redis transport, and back: any producer's, read without ever failing.

What a message has gone through (its token, crashes and offers) travels in its properties under `umbel`, written only
when it goes back to its queue; a message straight from a producer has none.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from umbel.core.envelope import BASE64, JSON_ONLY, TEXT, TEXT_FROM, plain_body, read_envelope, write_envelope
from umbel.core.head import Quarantined
from umbel.core.head_reader import parse_time, read_head
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.message import Delivery, Message
from umbel.engines.redis.delivery_tags import delivery_tag

__all__ = ["Counts", "Tag", "deliver", "marked", "pack", "pack_push", "plain", "read_counts", "repack"]

#: How every head begins that `core.head` writes; the properties stand last in those.
_USUAL = b'{"content-encoding"'


class Tag(msgspec.Struct, frozen=True, gc=False):
    """The handle of a leased message: its number, the list (without prefix) it came from, and its token."""

    number: int
    list: bytes
    token: int
    #: How often it was taken over since it left its list.
    bumps: int = 0
    #: What it is known by among the messages taken in from another broker; None: it is none of those.
    adopted: str | None = None


class Counts(msgspec.Struct, gc=False, omit_defaults=True):
    """What an envelope's properties keep under `umbel`."""

    token: int = 0
    crashes: int = 0
    offers: int = 0
    #: Of a message whose head is not a usual one: the head itself (base64) and what it does not tell.
    head: str | None = None
    due: float = 0.0
    expires: float = 0.0
    published: float = 0.0
    #: While it is held: what it is known by among the messages taken in from another broker. Scripts read it where it
    #: stands, as the last one.
    adopted: str | None = None


class _Headers(msgspec.Struct, gc=False):
    task: str
    id: str
    eta: str | None = None
    expires: str | None = None
    retries: int | None = None
    #: What takes the place of a task has its id too (`Task.replace`).
    replaced_task_nesting: int | None = None


class _Properties(msgspec.Struct, gc=False):
    priority: int | None = None
    umbel: Counts | None = None
    body_encoding: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    headers: msgspec.Raw
    properties: msgspec.Raw
    #: Read as base64, four times faster than binascii does.
    body: bytes
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")


class _WithoutBody(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    headers: msgspec.Raw
    properties: msgspec.Raw
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")


class _Head(msgspec.Struct, gc=False):
    headers: _Headers
    properties: _Properties


_read = msgspec.json.Decoder(_Head).decode
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_without = msgspec.json.Decoder(_WithoutBody).decode
_read_headers = msgspec.json.Decoder(_Headers).decode
_read_properties = msgspec.json.Decoder(_Properties).decode
_read_open = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode
_EMPTY = Counts()


def pack(
    message: Message,
    now: float = 0.0,
    counts: Counts | None = None,
    tag: bytes | None = None,
    text_from: int | None = TEXT_FROM,
) -> bytes:
    """Return the envelope of a message, with the delivery tag given or one of its own; see `write_envelope`."""
    head = message.head
    text = delivery_tag() if tag is None else tag.decode()
    if not head.startswith(_USUAL) or head[-2:] != b"}}":
        return _pack_unusual(message, now, counts or _EMPTY, text)
    if counts is not None and counts != _EMPTY:
        head = b'%b,"umbel":%b}}' % (head[:-2], _encode(counts))
    return write_envelope(head, message.body, text, text_from)


def pack_push(
    key: bytes,
    messages: Sequence[Message],
    tags: Sequence[bytes],
    now: float,
    most_bytes: int,
    text_from: int | None = TEXT_FROM,
) -> tuple[bytes, int]:
    """Return the LPUSH of the first messages that take about `most_bytes` together, at least one; and how many.

    The envelopes are those that `pack` makes, written into the command at once.
    """
    parts: list[bytes] = [b""]
    count = size = 0
    short = float("inf") if text_from is None else text_from
    for message, tag in zip(messages, tags, strict=False):
        head = message.head
        if head[-2:] == b"}}" and head.startswith(_USUAL) and len(message.body) < short:
            body = _encode_body(message.body)
            length = len(body) + len(head) + _AROUND
            parts += (b'$%d\r\n{"body":' % length, body, b",", head[1:-2], _TAIL, tag, _END)
        else:
            raw = pack(message, now, None, tag, text_from)
            length = len(raw)
            parts += (b"$%d\r\n" % length, raw, b"\r\n")
        count += 1
        size += length
        if size >= most_bytes:
            break
    parts[0] = b"*%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (count + 2, len(key), key)
    return b"".join(parts), count


_encode_body = msgspec.json.Encoder().encode
#: How an envelope goes on behind the head's own properties, around the delivery tag.
_TAIL, _END = b',"body_encoding":"base64","delivery_tag":"', b'"}}\r\n'
#: What is added to body and head, of which the first brace and the last two are left out.
_AROUND = len(b'{"body":,') - 3 + len(_TAIL) + 36 + len(b'"}}')


def marked(raw: bytes) -> bytes:
    """Return an envelope made by `pack` with a mark that umbel has sent it, which only umbel reads."""
    return raw if raw.endswith(b"}}}") or b',"umbel":{' in raw else raw[:-2] + b',"umbel":{}}}'


def _pack_unusual(message: Message, now: float, counts: Counts, tag: str) -> bytes:
    """Write a message whose head is none of ours, so that it comes out as it is."""
    full = Counts(
        counts.token,
        counts.crashes,
        counts.offers,
        base64.b64encode(message.head).decode(),
        message.due,
        message.expires,
        now,
        counts.adopted,
    )
    head = {
        "content-encoding": None,
        "content-type": None,
        "headers": {"task": message.task, "id": message.id, "retries": message.generation},
        "properties": {"priority": message.priority, "umbel": full},
    }
    return write_envelope(_encode(head), message.body, tag)


def repack(raw: bytes, counts: Counts) -> bytes:
    """Return the envelope with other counts, for a message that goes back. `raw` has been read before."""
    envelope = _read_open(raw)
    properties = _read_open(envelope.get("properties", b"{}"))
    properties.pop("umbel", None)
    if counts != _EMPTY:
        properties["umbel"] = msgspec.Raw(_encode(counts))
    envelope["properties"] = msgspec.Raw(_encode(properties))
    return _encode(envelope)


def read_counts(raw: bytes) -> Counts:
    """Return what an envelope that has been read before keeps under `umbel`."""
    try:
        properties = msgspec.json.decode(_read_open(raw)["properties"], type=_Properties)
    except (msgspec.MsgspecError, KeyError):
        return _EMPTY
    return properties.umbel or _EMPTY


def deliver(
    raw: bytes,
    queue: str,
    number: int,
    name: bytes,
    note: bytes = b"",
    accept: Collection[str] = JSON_ONLY,
    *,
    encoded: bool = False,
) -> Delivery | Quarantined:
    """Return the delivery of an envelope that was leased from list `name`, or why it is no message. Never raises.

    A protocol 1 message has its name in the body, which is decoded if `accept` allows that. With `encoded` a large
    body may stay as it stands in the envelope.
    """
    large = _deliver_large(raw, queue, encoded) if len(raw) > _LARGE else None
    delivery = large or _deliver_usual(raw, queue) or _deliver_any(raw, queue, accept)
    if isinstance(delivery, Quarantined):
        return delivery
    bumps = _noted(delivery, note) if note else 0
    delivery.token += 1 + bumps
    delivery.tag = Tag(number, name, delivery.token, bumps, delivery.tag)
    return delivery


def _deliver_usual(raw: bytes, queue: str) -> Delivery | None:
    """The short way for what nearly all producers write; None for everything else, good or bad."""
    if len(raw) > DEFAULT_LIMITS.message_bytes:
        return None
    try:
        envelope = _read_envelope(raw)
        headers, properties = _read_headers(envelope.headers), _read_properties(envelope.properties)
        if properties.body_encoding != BASE64:
            return None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return _filled(headers, properties, queue, _head(envelope), envelope.body)


#: From so many bytes on it pays to look for the end of the body first.
_LARGE = 8192
_STARTS = (b'{"body":"', b'{"body": "')
_ENCODINGS = {BASE64: BASE64, None: TEXT, TEXT: TEXT}
#: How many quotes and, in a row, backslashes a body may have for its end to be looked for.
_MOST_QUOTES, _MOST_BACKSLASHES = 1000, 32


def _deliver_large(raw: bytes, queue: str, encoded: bool) -> Delivery | None:
    """The same for an envelope that begins with its body, as those of umbel and kombu do: JSON is read without it."""
    start = next((len(text) for text in _STARTS if raw.startswith(text)), 0)
    end = _end_of_text(raw, start) if start and len(raw) <= DEFAULT_LIMITS.message_bytes else -1
    rest = raw[end + 1 :].lstrip()
    if end < 0 or not rest.startswith(b","):
        return None
    try:
        envelope = _read_without(b"{" + rest[1:])
        headers, properties = _read_headers(envelope.headers), _read_properties(envelope.properties)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    encoding = _ENCODINGS.get(properties.body_encoding)
    if encoding is None:
        return None
    begin, stop = (start, end) if encoding == BASE64 else (start - 1, end + 1)
    if not encoded:
        plain = plain_body(raw[begin:stop], encoding)
        return None if isinstance(plain, Quarantined) else _filled(headers, properties, queue, _head(envelope), plain)
    if encoding == BASE64 and raw.find(b"\\", start, end) >= 0:
        return None
    # Not copied: what is done with it is to copy it to where an executor reads it.
    delivery = _filled(headers, properties, queue, _head(envelope), memoryview(raw)[begin:stop])
    if delivery is not None:
        delivery.body_encoding = encoding
    return delivery


def _end_of_text(raw: bytes, start: int) -> int:
    """Return where the JSON string ends whose text begins at `start`; -1 where that is hard to tell."""
    end = start - 1
    for _ in range(_MOST_QUOTES):
        end = raw.find(b'"', end + 1)
        if end < 0 or raw[end - 1] != _BACKSLASH:
            return end
        if raw[end - 2] != _BACKSLASH:
            continue
        before = raw[max(end - _MOST_BACKSLASHES, start) : end]
        count = len(before) - len(before.rstrip(b"\\"))
        if count == _MOST_BACKSLASHES:
            return -1
        if count % 2 == 0:
            return end
    return -1


_BACKSLASH = ord("\\")


def _head(envelope: _Envelope | _WithoutBody) -> bytes:
    return b"".join((_content(envelope), envelope.headers, b',"properties":', envelope.properties, b"}"))


#: (content encoding, content type) → how a head begins.
_CONTENTS: dict[tuple[str | None, str | None], bytes] = {}


def _content(envelope: _Envelope | _WithoutBody) -> bytes:
    key = (envelope.content_encoding, envelope.content_type)
    found = _CONTENTS.get(key)
    if found is None:
        found = b'{"content-encoding":%b,"content-type":%b,"headers":' % (_encode(key[0]), _encode(key[1]))
        if len(_CONTENTS) < 100:
            _CONTENTS[key] = found
    return found


_LONGEST = min(DEFAULT_LIMITS.id_length, DEFAULT_LIMITS.name_length)


def _filled(headers: _Headers, properties: _Properties, queue: str, head: bytes, body: Any) -> Delivery | None:
    """Return the delivery without tag; None when a header is no value that can be used."""
    due = parse_time(headers.eta) if headers.eta else 0.0
    expires = parse_time(headers.expires) if headers.expires else 0.0
    if due is None or expires is None or not 0 < len(headers.id) <= _LONGEST or not 0 < len(headers.task) <= _LONGEST:
        return None
    priority, generation = properties.priority or 0, (headers.retries or 0) + (headers.replaced_task_nesting or 0)
    delivery = Delivery(headers.id, headers.task, queue, head, body, "", priority, due, expires, generation)
    if properties.umbel is not None:
        _restore(delivery, properties.umbel)
    return delivery


def _deliver_any(raw: bytes, queue: str, accept: Collection[str]) -> Delivery | Quarantined:
    """The tolerant way: protocol 1, bodies that are text, odd spellings; or the reason why it is no message."""
    parts = read_envelope(raw, accept)
    if isinstance(parts, Quarantined):
        return parts
    head, body = parts
    try:
        known = _read(head)
        return _filled(known.headers, known.properties, queue, head, body) or _refused(head)
    except (msgspec.MsgspecError, RecursionError):
        pass
    tolerant = read_head(head)
    if isinstance(tolerant, Quarantined):
        return tolerant
    priority, due, expires = tolerant.priority or 0, tolerant.eta or 0.0, tolerant.expires or 0.0
    generation = tolerant.retries + (tolerant.replaced_task_nesting or 0)
    return Delivery(tolerant.id, tolerant.task, queue, head, body, "", priority, due, expires, generation)


def _refused(head: bytes) -> Quarantined:
    found = read_head(head)
    return found if isinstance(found, Quarantined) else Quarantined("the message's headers cannot be used")


def _restore(delivery: Delivery, counts: Counts) -> None:
    delivery.token, delivery.crashes, delivery.offers = counts.token, counts.crashes, counts.offers
    delivery.tag = counts.adopted
    if counts.head is not None:
        try:
            delivery.head = base64.b64decode(counts.head)
        except ValueError:
            return
        delivery.due, delivery.expires, delivery.published = counts.due, counts.expires, counts.published


def _noted(delivery: Delivery, note: bytes) -> int:
    """Read "<bumps> <ticket> <former owner>"; return the bumps."""
    bumps, ticket, former = note.split(b" ", 2)
    delivery.ticket, delivery.former_owner = int(ticket), former.rstrip(b" ").decode()
    return int(bumps)


def plain(raw: bytes) -> Counts:
    """Return the counts of a message that is sent anew: nothing has been counted yet."""
    counts = read_counts(raw)
    return Counts(head=counts.head, due=counts.due, expires=counts.expires, published=counts.published)
