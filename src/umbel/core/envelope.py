"""The JSON envelope of kombu's virtual transports around head and body, and protocol 1 messages made
readable.

One pass over an envelope finds the base64 body and leaves headers and properties as the bytes they are.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from datetime import UTC, datetime, tzinfo
from typing import Any

import msgspec

from umbel.core import compression, json_types, serialization
from umbel.core.errors import DecodeError
from umbel.core.head import Quarantined
from umbel.core.head_reader import parse_time, show
from umbel.core.limits import DEFAULT_LIMITS, Limits
from umbel.core.safe_repr import arguments_repr

__all__ = [
    "BASE64",
    "JSON_ONLY",
    "TEXT",
    "TEXT_FROM",
    "decode_content",
    "plain_body",
    "quoted_body",
    "read_envelope",
    "upgrade_head",
    "write_envelope",
]

JSON_ONLY = frozenset({serialization.JSON})

#: How a body may stand in its envelope (kombu: the property `body_encoding`; without it a body is text).
BASE64, TEXT = "base64", "utf-8"
#: From so many bytes on a JSON body is written as the text that it is: a quarter shorter, and read in half the time.
TEXT_FROM = 16_384
#: How the heads of such messages begin.
_JSON_HEAD = b'{"content-encoding":"utf-8","content-type":"application/json"'
#: Of so many bytes in front and in the middle, how many may need an escape: with more of them base64 is better.
_SAMPLE, _MOST_ESCAPES = 2048, 64

_RAW_NONE = msgspec.Raw(b"null")
#: A head's properties are never empty, so that `write_envelope` can add to them.
_EMPTY = (b"null", b"{}")
_encode = msgspec.json.encode


class _Envelope(msgspec.Struct, gc=False):
    headers: msgspec.Raw
    properties: msgspec.Raw = _RAW_NONE
    body: str | None = None
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")


class _Task(msgspec.Struct, gc=False):
    task: Any = None


class _BodyEncoding(msgspec.Struct, gc=False):
    body_encoding: str | None = None


_read = msgspec.json.Decoder(_Envelope).decode
_read_task = msgspec.json.Decoder(_Task).decode
_read_text = msgspec.json.Decoder(str).decode
_read_body_encoding = msgspec.json.Decoder(_BodyEncoding | None).decode


def write_envelope(head: bytes, body: bytes, delivery_tag: str, text_from: int | None = TEXT_FROM) -> bytes:
    """Return the envelope that kombu's Redis transport keeps in its lists; `delivery_tag` is a fresh UUID
    text. JSON of `text_from` bytes or more is written as text (None: never), all else as base64.
    """
    text = None if text_from is None or len(body) < text_from else quoted_body(head, body)
    return b"".join(
        (
            # As base64, which msgspec writes twice as fast as binascii does.
            b'{"body":',
            _encode(body) if text is None else text,
            b",",
            head[1:-2],
            b',"body_encoding":"base64","delivery_tag":' if text is None else b',"delivery_tag":',
            _encode(delivery_tag),
            b"}}",
        )
    )


def quoted_body(head: bytes, body: bytes) -> bytes | None:
    """Return a body as a JSON string; None where it is no JSON, or has so many quotes that base64 is better."""
    middle = len(body) // 2
    if not head.startswith(_JSON_HEAD) or _escapes(body, 0) + _escapes(body, middle) > _MOST_ESCAPES:
        return None
    try:
        return _encode(str(body, "utf-8"))
    except UnicodeDecodeError:  # compressed
        return None


def _escapes(body: bytes, start: int) -> int:
    end = start + _SAMPLE
    return body.count(b'"', start, end) + body.count(b"\\", start, end)


def plain_body(body: bytes | memoryview, encoding: str) -> bytes | Quarantined:
    """Return a body as its serializer wrote it, or why there is none; see `Delivery.body_encoding`. Never raises."""
    if encoding == BASE64:
        return _from_base64(body)
    return _from_quoted(bytes(body)) if encoding == TEXT else bytes(body)


def _from_base64(body: bytes | memoryview) -> bytes | Quarantined:
    try:
        # Four times faster than binascii, and stricter: what it refuses may be base64 all the same.
        return msgspec.convert(str(body, "ascii"), bytes)
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        return Quarantined(f"the body is not base64: {show(error)}")


def _from_quoted(body: bytes) -> bytes | Quarantined:
    try:
        return _unescaped(body) or _read_text(body).encode()
    except (msgspec.MsgspecError, UnicodeError) as error:
        return Quarantined(f"the body is not readable text: {show(error)}")


def _unescaped(body: bytes) -> bytes | None:
    """The short way for text with a few escaped quotes; None where there are many, or other escapes."""
    if body[:1] != b'"' or body[-1:] != b'"':
        return None
    view, start, pieces = memoryview(body), 1, list[memoryview]()
    for _ in range(_MOST_ESCAPES):
        end = body.find(b"\\", start)
        if end < 0:
            pieces.append(view[start:-1])
            return b"".join(pieces)
        if body[end + 1 : end + 2] != b'"':
            return None
        pieces.append(view[start:end])
        start = end + 1
    return None


def read_envelope(
    data: bytes,
    accept: Collection[str] = JSON_ONLY,
    limits: Limits = DEFAULT_LIMITS,
    zone: tzinfo = UTC,
) -> tuple[bytes, bytes] | Quarantined:
    """Return (head, body) of an envelope, or why it is none. Never raises.

    A protocol 1 message has its id and name in the body: that is decoded here, if `accept` allows, and its
    head
    comes out in the form of protocol 2 (see `upgrade_head`).
    """
    # base64 makes the body a third larger than its limit, the head stands beside it
    if len(data) > limits.message_bytes * 4 // 3 + limits.headers_bytes:
        return Quarantined(f"the message has {len(data)} bytes, more than the limit of {limits.message_bytes}")
    try:
        envelope = _read_parts(data, limits)
        if isinstance(envelope, Quarantined):
            return envelope
        body = _unpack_body(envelope)
        if isinstance(body, Quarantined):
            return body
        properties = bytes(envelope.properties)
        head = b"".join(
            (
                b'{"content-encoding":',
                _encode(envelope.content_encoding),
                b',"content-type":',
                _encode(envelope.content_type),
                b',"headers":',
                bytes(envelope.headers),
                b',"properties":',
                properties if properties not in _EMPTY else b'{"reply_to":""}',
                b"}",
            )
        )
        return _upgraded(head, bytes(envelope.headers), body, accept, limits, zone)
    except Exception as error:  # noqa: BLE001 - a total function
        return Quarantined(f"the message cannot be read: {type(error).__name__}: {show(error)}")


def _upgraded(
    head: bytes, headers: bytes, body: bytes, accept: Collection[str], limits: Limits, zone: tzinfo
) -> tuple[bytes, bytes] | Quarantined:
    try:
        if _read_task(headers).task is not None:
            return head, body
    except msgspec.MsgspecError:
        pass
    upgraded = upgrade_head(head, body, accept, limits, zone)
    return upgraded if isinstance(upgraded, Quarantined) else (upgraded, body)


def _read_parts(data: bytes, limits: Limits) -> _Envelope | Quarantined:
    try:
        return _read(data)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        raw = json_types.loads(data, limits.depth)
    except DecodeError as error:
        return Quarantined(f"the message is not readable: {show(error)}")
    if not isinstance(raw, dict):
        return Quarantined(f"the message is not a mapping but a {type(raw).__name__}")
    for name, kind in (("headers", dict), ("properties", dict), ("body", str)):
        if not isinstance(raw.get(name), kind):
            return Quarantined(f"the message has no proper {name!r} (found a {type(raw.get(name)).__name__})")
    for name in ("content-type", "content-encoding"):
        if not isinstance(raw.get(name), (str, type(None))):
            return Quarantined(f"the message's {name!r} is not a text")
    return _Envelope(
        headers=msgspec.Raw(json_types.dumps(raw["headers"], limits.depth)),
        properties=msgspec.Raw(json_types.dumps(raw["properties"], limits.depth)),
        body=raw["body"],
        content_type=raw.get("content-type"),
        content_encoding=raw.get("content-encoding"),
    )


def _unpack_body(envelope: _Envelope) -> bytes | Quarantined:
    if envelope.body is None:
        return Quarantined("the message has no body")
    try:
        properties = _read_body_encoding(envelope.properties)
    except msgspec.MsgspecError as error:
        return Quarantined(f"the message's properties are wrong: {show(error)}")
    encoding = properties.body_encoding if properties is not None else None
    if encoding == BASE64:
        return _from_base64(envelope.body.encode("utf-8", "surrogatepass"))
    # kombu: its producers write `utf-8` where they are told so
    if encoding is None or encoding.lower() == TEXT:
        try:
            return envelope.body.encode("utf-8")
        except UnicodeEncodeError as error:
            return Quarantined(f"the body is not readable text: {show(error)}")
    return Quarantined(f"the body has the unknown encoding {show(encoding)}; known: base64, utf-8")


def decode_content(
    body: bytes,
    content: tuple[str | None, str | None, str | None],
    accept: Collection[str],
    limits: Limits,
) -> Any:
    """Return the value in a body; `content` is (type, encoding, compression mime or None). Raises
    DecodeError.
    """
    content_type, content_encoding, packed = content
    if len(body) > limits.message_bytes:
        raise DecodeError(f"the body has {len(body)} bytes, more than the limit of {limits.message_bytes}")
    if packed:
        body = compression.decompress(
            body, packed, max_bytes=limits.decompressed_bytes, max_ratio=limits.decompressed_ratio
        )
    return serialization.loads(body, content_type, content_encoding, accept, limits)


# --- protocol 1 -------------------------------------------------------------------------------------------


def upgrade_head(
    head: bytes,
    body: bytes,
    accept: Collection[str] = JSON_ONLY,
    limits: Limits = DEFAULT_LIMITS,
    zone: tzinfo = UTC,
) -> bytes | Quarantined:
    """Return the head with all headers of protocol 2; a head that names its task is returned as it is.

    Without that header the message is of protocol 1: its body, a mapping with everything, is decoded if
    `accept`
    allows. The body itself stays as it is; `read_body` reads both forms. Never raises.
    """
    try:
        raw = json_types.loads(head, limits.depth)
        if not isinstance(raw, dict):
            return Quarantined("the message's head is not a mapping")
        headers = raw.get("headers") or {}
        if not isinstance(headers, dict):
            return Quarantined(f"the message's headers are not a mapping but a {type(headers).__name__}")
        if headers.get("task") is not None:
            return head
        content = (raw.get("content-type"), raw.get("content-encoding"), headers.get("compression"))
        fields = decode_content(body, content, accept, limits)
        if not isinstance(fields, dict):
            return Quarantined("the header 'task' is missing and the body is not a protocol 1 message")
        if fields.get("task") is None:
            return Quarantined("neither the headers nor the body name a task")
        upgraded = _protocol_2_headers({**fields, **headers}, fields, zone)
        return json_types.dumps(
            {
                "content-encoding": raw.get("content-encoding"),
                "content-type": raw.get("content-type"),
                "protocol": 1,
                "headers": {**upgraded, **{key: headers[key] for key in headers if key not in upgraded}},
                "properties": raw.get("properties") or {"correlation_id": fields.get("id"), "reply_to": ""},
            },
            limits.depth,
        )
    except Exception as error:  # noqa: BLE001 - a total function
        return Quarantined(f"the message cannot be read: {show(error)}")


def _protocol_2_headers(fields: dict[str, Any], body: dict[str, Any], zone: tzinfo) -> dict[str, Any]:
    args, kwargs = body.get("args"), body.get("kwargs")
    argsrepr, kwargsrepr = arguments_repr(
        args if isinstance(args, (list, tuple)) else (), kwargs if isinstance(kwargs, dict) else {}
    )
    clock = UTC if body.get("utc", True) else zone
    return {
        "lang": fields.get("lang"),
        "task": fields.get("task"),
        "id": fields.get("id"),
        "shadow": fields.get("shadow"),
        "eta": _with_offset(fields.get("eta"), clock),
        "expires": _with_offset(fields.get("expires"), clock),
        "group": fields.get("group") or fields.get("taskset"),
        "group_index": fields.get("group_index"),
        "retries": fields.get("retries") or 0,
        "timelimit": fields.get("timelimit") or [None, None],
        "root_id": fields.get("root_id"),
        "parent_id": fields.get("parent_id"),
        "argsrepr": fields.get("argsrepr") or argsrepr,
        "kwargsrepr": fields.get("kwargsrepr") or kwargsrepr,
        "origin": fields.get("origin"),
        "ignore_result": fields.get("ignore_result"),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _with_offset(when: Any, zone: tzinfo) -> Any:
    """Write the zone into a time that has none; what is no time is left for `read_head` to refuse."""
    text = when.isoformat() if hasattr(when, "isoformat") else when
    if not isinstance(text, str) or parse_time(text, zone) is None:
        return text
    moment = datetime.fromisoformat(text)
    return text if moment.tzinfo is not None else moment.replace(tzinfo=zone).isoformat()
