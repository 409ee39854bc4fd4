"""Celery's task messages, protocol 2 written, 1 and 2 read: the one door through which outside bytes come in.

Every reader here is a total function: it returns a value or `Quarantined`, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from umbel.core import compression as compressions
from umbel.core import serialization
from umbel.core.envelope import JSON_ONLY, decode_content, plain_body, read_envelope, upgrade_head, write_envelope
from umbel.core.errors import EncodeError, ImproperlyConfigured
from umbel.core.head import (
    PROTOCOL_HEADERS,
    Head,
    HeadFields,
    HeadTemplate,
    Quarantined,
    custom_headers,
    format_time,
)
from umbel.core.head_reader import headers_of, parse_time, read_head, show
from umbel.core.limits import DEFAULT_LIMITS, Limits
from umbel.core.safe_repr import arguments_repr

__all__ = [
    "JSON_ONLY",
    "PROTOCOL_HEADERS",
    "EncodedBody",
    "Head",
    "HeadFields",
    "HeadTemplate",
    "Payload",
    "Quarantined",
    "arguments_repr",
    "custom_headers",
    "embed_tail",
    "encode_body",
    "encode_scalars",
    "format_time",
    "headers_of",
    "parse_time",
    "plain_body",
    "read_body",
    "read_envelope",
    "read_head",
    "upgrade_head",
    "write_envelope",
]


class EncodedBody(NamedTuple):
    """A body as it travels; `compression` is the mime type for the header of that name, None if not
    compressed.
    """

    data: bytes
    content_type: str
    content_encoding: str
    compression: str | None


class Payload(msgspec.Struct, gc=False):
    """What a body holds: the arguments of the call and the signatures that follow it, all plain values.

    `chain` is reversed as on the wire: the next step is its last element.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None
    #: The chain as JSON, from a reader that leaves its steps unread; `chain` is None then.
    steps: Sequence[msgspec.Raw] = ()


#: What a body of protocol 1 has at least one of; another mapping is no list of arguments in any protocol.
_OLD_FIELDS = frozenset({"task", "args", "kwargs"})
_NO_EMBED: Mapping[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def encode_body(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] | None = None,
    *,
    serializer: str = "json",
    compression: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> EncodedBody:
    """Serialize the arguments and the signatures in `embed` (callbacks, errbacks, chain, chord; missing =
    None).

    EncodeError says which value cannot be written, or that the body is larger than a worker would read.
    """
    if embed is None and compression is None and serializer == "json":
        quick = encode_scalars(args, kwargs)
        if quick is not None and len(quick) <= limits.message_bytes:
            return EncodedBody(quick, "application/json", "utf-8", None)
    follow = _NO_EMBED if embed is None else {**_NO_EMBED, **embed}
    data, content_type, content_encoding = serialization.dumps((args, kwargs, follow), serializer)
    if len(data) > limits.decompressed_bytes:
        raise EncodeError(_too_large(len(data), limits.decompressed_bytes))
    mime = None
    if compression is not None:
        try:
            data, mime = compressions.compress(data, compression)
        except ImproperlyConfigured as error:
            raise EncodeError(str(error)) from error
    if len(data) > limits.message_bytes:
        raise EncodeError(_too_large(len(data), limits.message_bytes))
    return EncodedBody(data, content_type, content_encoding, mime)


_SCALARS = frozenset({int, str, bool, type(None)})
_write_json = msgspec.json.Encoder().encode
_NO_EMBED_JSON = b"," + _write_json(_NO_EMBED) + b"]"


def embed_tail(embed: Mapping[str, Any]) -> bytes | None:
    """Return the end of a JSON body with this embed, for `encode_scalars`; None where JSON has no form for it."""
    try:
        return b"," + serialization.dumps({**_NO_EMBED, **embed}, "json").data + b"]"
    except EncodeError:
        return None


def steps_tail(steps: Sequence[msgspec.Raw]) -> bytes:
    """Return the end of a JSON body that nothing follows but these steps of a chain, for `encode_scalars`."""
    if not steps:
        return _NO_EMBED_JSON
    return b',{"callbacks":null,"errbacks":null,"chain":[%b],"chord":null}]' % b",".join(steps)


def encode_scalars(args: Sequence[Any], kwargs: Mapping[str, Any], tail: bytes = _NO_EMBED_JSON) -> bytes | None:
    """Return the JSON body of a call with a few numbers and texts, what most calls are; None for everything else."""
    for value in args:
        if type(value) not in _SCALARS:
            return None
    try:
        if not kwargs:
            return b"[" + _write_json(args) + b",{}" + tail
        for key, value in kwargs.items():
            if type(value) not in _SCALARS or type(key) is not str:
                return None
        return b"[" + _write_json(args) + b"," + _write_json(kwargs) + tail
    except (UnicodeEncodeError, TypeError):
        return None


def _too_large(size: int, limit: int) -> str:
    return (
        f"the arguments take {size} bytes, more than the limit of {limit} bytes for one message; "
        "store large data elsewhere and pass its address"
    )


def read_body(
    head: Head,
    body: bytes,
    accept: Collection[str] = JSON_ONLY,
    limits: Limits = DEFAULT_LIMITS,
) -> Payload | Quarantined:
    """Return what the body holds, or why it cannot be used. Never raises.

    `accept` has the serializer names or mime types that may be decoded at all.
    """
    try:
        content = (head.content_type, head.content_encoding, head.compression)
        value = decode_content(body, content, accept, limits)
        if isinstance(value, dict) and not _OLD_FIELDS.isdisjoint(value):
            return _payload(value.get("args") or [], value.get("kwargs") or {}, {**value, "chain": None})
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            return Quarantined("the body is not a list of arguments, keyword arguments and embedded signatures")
        return _payload(*value)
    except Exception as error:  # noqa: BLE001 - a total function
        return Quarantined(f"the body cannot be read: {show(error, 400)}")


def _payload(args: Any, kwargs: Any, embed: Any) -> Payload | Quarantined:
    if not isinstance(args, (list, tuple)):
        return Quarantined(f"the arguments are not a list but a {type(args).__name__}")
    if not isinstance(kwargs, dict):
        return Quarantined(f"the keyword arguments are not a mapping but a {type(kwargs).__name__}")
    for key in kwargs:
        if not isinstance(key, str):
            return Quarantined(f"a keyword argument's name is not a text but a {type(key).__name__}")
    payload = Payload(list(args), kwargs)
    if embed is None:
        return payload
    if not isinstance(embed, dict):
        return Quarantined(f"the embedded signatures are not a mapping but a {type(embed).__name__}")
    for name in ("callbacks", "errbacks", "chain"):
        value = embed.get(name)
        if value:
            signatures = [value] if isinstance(value, dict) else value
            if not isinstance(signatures, (list, tuple)) or not all(map(_is_signature, signatures)):
                return Quarantined(f"the body's {name!r} is not a list of signatures")
            setattr(payload, name, list(signatures))
    chord = embed.get("chord")
    if chord is not None:
        if not _is_signature(chord):
            return Quarantined("the body's 'chord' is not a signature")
        payload.chord = chord
    return payload


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)
