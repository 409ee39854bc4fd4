"""The serializers by name and by content type: json, msgpack, yaml, pickle, raw, and those that a program
registers.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from umbel.core import json_types
from umbel.core.errors import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MessageRefused,
)
from umbel.core.json_types import register_type, unregister_type
from umbel.core.limits import DEFAULT_LIMITS, Limits
from umbel.core.optional import load_optional

__all__ = [
    "Encoded",
    "accept_set",
    "content_type_of",
    "dumps",
    "loads",
    "names",
    "register",
    "register_type",
    "unregister",
    "unregister_type",
]

Encoder = Callable[[Any], "bytes | str"]
Decoder = Callable[[bytes], Any]

JSON = "application/json"
RAW = "application/data"
_PICKLE_PROTOCOL = 4  # what Celery's peers read and write
#: Handed over as bytes or text without any decoding, so always safe to accept (Celery: the same two).
_OPAQUE = frozenset({RAW, "application/text"})
_BINARY = frozenset({"binary", "ascii-8bit"})


class Encoded(NamedTuple):
    """A serialized value with what a reader needs to know about it."""

    data: bytes
    content_type: str
    content_encoding: str


class _Serializer(NamedTuple):
    name: str
    content_type: str
    content_encoding: str
    encoder: Encoder | None
    decoder: Decoder | None
    #: The decoder counts the depth itself, or cannot be bounded (pickle).
    bounded: bool = False


def dumps(value: Any, serializer: str = "json") -> Encoded:
    """Serialize a value; EncodeError says why it cannot be done.

    `raw` takes bytes (application/data) and text (text/plain) as they are.
    """
    if serializer == "json":
        return Encoded(json_types.dumps(value), JSON, "utf-8")
    if serializer == "raw":
        return _dump_raw(value)
    entry = _by_name.get(serializer)
    if entry is None:
        raise EncodeError(f"unknown serializer {serializer!r}; use one of: {', '.join(names())}")
    if entry.encoder is None:
        raise EncodeError(f"the serializer {serializer!r} can only read; it was registered without an encoder")
    try:
        data = entry.encoder(value)
    except EncodeError:
        raise
    except ImproperlyConfigured as error:
        raise EncodeError(str(error)) from error
    except Exception as error:
        raise EncodeError(f"cannot write the value as {serializer}: {error}") from error
    return Encoded(data.encode("utf-8") if isinstance(data, str) else data, entry.content_type, entry.content_encoding)


def loads(
    data: bytes,
    content_type: str | None,
    content_encoding: str | None,
    accept: Collection[str],
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """Return the value that `data` holds.

    `accept` has serializer names or mime types; anything else raises ContentDisallowed before a byte is
    looked at.
    Bytes without a decoder come back as text or bytes, as their encoding says. Raises DecodeError.
    """
    content_type = content_type or RAW
    entry = _by_type.get(content_type)
    if content_type not in accept and (entry is None or entry.name not in accept):
        opaque = entry is None and content_type in _OPAQUE
        if not opaque:
            raise ContentDisallowed(_refusal(content_type, entry, accept))
    if entry is None or entry.decoder is None:
        return _load_opaque(data, content_encoding)
    if entry.content_type == JSON and entry.bounded:
        return json_types.loads(data, limits.depth)
    try:
        value = entry.decoder(data)
    except (DecodeError, MessageRefused):
        raise
    except ImproperlyConfigured as error:
        raise DecodeError(str(error)) from error
    except Exception as error:
        raise DecodeError(f"the content is not readable {entry.name}: {type(error).__name__}: {error}") from error
    if not entry.bounded and json_types.depth_exceeds(value, limits.depth):
        raise MessageRefused(f"the {entry.name} content is nested deeper than {limits.depth} levels")
    return value


def _refusal(content_type: str, entry: _Serializer | None, accept: Collection[str]) -> str:
    what = f"{entry.name} ({content_type})" if entry is not None else f"{content_type[:128]!a}"
    allowed = ", ".join(sorted(accept)) or "nothing"
    return f"refused to read content of type {what}; accepted: {allowed} (setting accept_content)"


def register(
    name: str,
    encoder: Encoder | None,
    decoder: Decoder | None,
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add a serializer or replace one. With None for a direction it cannot write, or returns raw bytes.

    Celery: `kombu.serialization.register`.
    """
    _add(_Serializer(name, content_type, content_encoding, encoder, decoder))


def unregister(name: str) -> None:
    """Forget a serializer; ImproperlyConfigured when there is none of that name."""
    entry = _by_name.pop(name, None)
    if entry is None:
        raise ImproperlyConfigured(f"there is no serializer {name!r}; known: {', '.join(names())}")
    _by_type.pop(entry.content_type, None)


def names() -> list[str]:
    """The serializer names that `dumps` knows, sorted."""
    return sorted({*_by_name, "raw"})


def content_type_of(name: str) -> str:
    """Return the mime type for a serializer name, or the mime type itself; ImproperlyConfigured if
    unknown.
    """
    if "/" in name:
        return name
    if name == "raw":
        return RAW
    entry = _by_name.get(name)
    if entry is None:
        raise ImproperlyConfigured(f"unknown serializer {name!r}; known: {', '.join(names())}")
    return entry.content_type


def accept_set(accepted: Iterable[str]) -> frozenset[str]:
    """Return names and mime types as one set of mime types, the form that `loads` reads fastest."""
    return frozenset(content_type_of(name) for name in accepted)


def _add(entry: _Serializer) -> None:
    _by_name[entry.name] = entry
    _by_type[entry.content_type] = entry


# --- raw ------------------------------------------------------------------------------------------------


def _dump_raw(value: Any) -> Encoded:
    if isinstance(value, str):
        try:
            return Encoded(value.encode("utf-8"), "text/plain", "utf-8")
        except UnicodeEncodeError as error:
            raise EncodeError(f"cannot write the text as utf-8: {error}") from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Encoded(bytes(value), RAW, "binary")
    raise EncodeError(f"the serializer 'raw' takes bytes or text, not {type(value).__name__}")


def _load_opaque(data: bytes, content_encoding: str | None) -> bytes | str:
    encoding = (content_encoding or "utf-8").lower()
    if encoding in _BINARY:
        return data
    try:
        return data.decode(encoding)
    except (LookupError, ValueError) as error:
        raise DecodeError(f"the content is not readable {encoding[:32]!a} text: {error}") from error


# --- msgpack ----------------------------------------------------------------------------------------------

_PACKABLE = frozenset({str, int, float, bool, type(None), bytes, bytearray})
_MAP_KEYS = frozenset({str, bytes, int})
# The methods of the builtins themselves: an enum that is also a text has its own idea of str().
_BUILTINS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
)


def _packable(value: Any, depth: int) -> Any:
    """Return the value in types that every msgpack library writes alike; subclasses become their builtins.

    msgspec would write datetimes, UUIDs, sets and dataclasses in its own way, where Celery's msgpack
    refuses them.
    """
    kind = type(value)
    if kind in _PACKABLE:
        return value
    if depth <= 0:
        raise EncodeError("cannot write the value as msgpack: it is nested too deep")
    if isinstance(value, dict):
        return {_packable_key(key): _packable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packable(item, depth - 1) for item in value]
    for builtin, convert in _BUILTINS:
        if isinstance(value, builtin):
            return convert(value)
    raise EncodeError(
        f"cannot write the value as msgpack: {kind.__module__}.{kind.__qualname__} has no msgpack form; "
        "pass plain values or use the serializer 'json'"
    )


def _packable_key(key: Any) -> Any:
    if type(key) in _MAP_KEYS:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    raise EncodeError(f"cannot write the value as msgpack: a {type(key).__name__} cannot be a mapping's key")


def _dump_msgpack(value: Any) -> bytes:
    return msgspec.msgpack.encode(_packable(value, DEFAULT_LIMITS.depth))


# --- yaml, pickle -----------------------------------------------------------------------------------------


def _yaml() -> Any:
    return load_optional("yaml", extra="yaml", purpose="the serializer 'yaml'")


def _dump_yaml(value: Any) -> str:
    text: str = _yaml().safe_dump(value)
    return text


def _load_yaml(data: bytes) -> Any:
    return _yaml().safe_load(data)


def _dump_pickle(value: Any) -> bytes:
    return pickle.dumps(value, protocol=_PICKLE_PROTOCOL)


def _load_pickle(data: bytes) -> Any:
    # Reached only when the program's own accept list names pickle.
    return pickle.loads(data)


_by_name: dict[str, _Serializer] = {}
_by_type: dict[str, _Serializer] = {}

_add(_Serializer("json", JSON, "utf-8", json_types.dumps, json_types.loads, bounded=True))
_add(_Serializer("msgpack", "application/x-msgpack", "binary", _dump_msgpack, msgspec.msgpack.decode))
_add(_Serializer("yaml", "application/x-yaml", "utf-8", _dump_yaml, _load_yaml))
_add(_Serializer("pickle", "application/x-python-serialize", "binary", _dump_pickle, _load_pickle, bounded=True))
