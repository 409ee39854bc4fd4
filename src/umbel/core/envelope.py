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

__all__ = ["JSON_ONLY", "decode_content", "read_envelope", "upgrade_head", "write_envelope"]

JSON_ONLY = frozenset({serialization.JSON})

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
_read_body_encoding = msgspec.json.Decoder(_BodyEncoding | None).decode


def write_envelope(head: bytes, body: bytes, delivery_tag: str) -> bytes:
    """Return the envelope that kombu's Redis transport keeps in its lists; `delivery_tag` is a fresh UUID
    text.
    """
    return b"".join(
        (
            # As base64, which msgspec writes twice as fast as binascii does.
            b'{"body":',
            _encode(body),
            b",",
            head[1:-2],
            b',"body_encoding":"base64","delivery_tag":',
            _encode(delivery_tag),
            b"}}",
        )
    )


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
    if encoding == "base64":
        try:
            return base64.b64decode(envelope.body, validate=True)
        except ValueError as error:
            return Quarantined(f"the body is not base64: {show(error)}")
    if encoding is None:
        try:
            return envelope.body.encode("utf-8")
        except UnicodeEncodeError as error:
            return Quarantined(f"the body is not readable text: {show(error)}")
    return Quarantined(f"the body has the unknown encoding {show(encoding)}; known: base64")


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
