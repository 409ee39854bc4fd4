"""JSON as Celery's peers write and read it: msgspec where all values are plain, kombu's tagged types where
not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec

from umbel.core.errors import DecodeError, EncodeError, MessageRefused
from umbel.core.limits import DEFAULT_LIMITS

__all__ = ["depth_exceeds", "dumps", "is_plain", "loads", "register_type", "surely_shallow", "unregister_type"]

Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]

#: What msgspec writes as it is; `Raw` is JSON that has been read before.
_SCALARS = frozenset({str, int, bool, type(None), msgspec.Raw})
_TAG_KEYS = frozenset({"__type__", "__value__"})
_TAG_BYTES = b'"__type__"'

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder().decode


def is_plain(value: Any, depth: int = DEFAULT_LIMITS.depth) -> bool:
    """True when msgspec writes exactly what the standard library's encoder would mean.

    Types are compared exactly: msgspec has its own forms for bytes, datetimes, sets, enums and dataclasses,
    which a Celery worker would take for other values, and it writes NaN as null.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return isfinite(value)
    if depth <= 0:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return False
            if type(item) not in _SCALARS and not is_plain(item, depth - 1):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:  # noqa: SIM110 - all() with a generator takes twice as long
            if type(item) not in _SCALARS and not is_plain(item, depth - 1):
                return False
        return True
    return False


def dumps(value: Any, depth: int = DEFAULT_LIMITS.depth) -> bytes:
    """Return the value as JSON bytes; EncodeError when it has no JSON form or is nested deeper than
    `depth`.
    """
    if is_plain(value, depth):
        try:
            return _write(value)
        except UnicodeEncodeError:
            pass  # a lone surrogate: the standard encoder escapes it, as Celery's does
        except ValueError as error:
            raise EncodeError(f"cannot write the value as json: {error}") from error
    return _dumps_tagged(value, depth)


def _dumps_tagged(value: Any, depth: int) -> bytes:
    try:
        data = _tagged_encoder.encode(value).encode("utf-8")
    except RecursionError:
        raise EncodeError(f"cannot write the value as json: it is nested deeper than {depth} levels") from None
    except Exception as error:
        raise EncodeError(f"cannot write the value as json: {error}") from error
    if not surely_shallow(data, depth) and depth_exceeds(json.loads(data), depth):
        raise EncodeError(f"cannot write the value as json: it is nested deeper than {depth} levels")
    return data


def loads(data: bytes, depth: int = DEFAULT_LIMITS.depth) -> Any:
    """Return the value that the JSON bytes hold, tagged types included.

    Raises DecodeError for what is not JSON or has an unknown tag, MessageRefused for too deep a nesting.
    """
    try:
        value = _loads_tagged(data) if _has_tag(data) else _loads_plain(data)
    except RecursionError:
        raise MessageRefused(f"the json is nested deeper than {depth} levels") from None
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"the content is not readable json: {error}") from error
    if not surely_shallow(data, depth) and depth_exceeds(value, depth):
        raise MessageRefused(f"the json is nested deeper than {depth} levels")
    return value


def _loads_plain(data: bytes) -> Any:
    try:
        return _read(data)
    except msgspec.MsgspecError:
        # msgspec refuses NaN, Infinity, lone surrogates and floats beyond the range, which peers may send.
        return json.loads(data.decode("utf-8"))


def _loads_tagged(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), object_hook=_untag)


#: How many underscores of a long text are looked at one by one: where there are few, that is much faster.
_MOST_UNDERSCORES = 64


def _has_tag(data: bytes) -> bool:
    """Tell whether a tag stands anywhere in the JSON text."""
    if len(data) >= _LONG:
        at = -1
        for _ in range(_MOST_UNDERSCORES):
            at = data.find(b"_", at + 1)
            if at < 0:
                return False
            if data.startswith(_TAG_BYTES, at - 1):
                return True
    return _TAG_BYTES in data


# --- depth ------------------------------------------------------------------------------------------------

_BRACKETS = bytes.maketrans(b"[]{}", b"()()")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')


#: From so many bytes on, searching for a few brackets is several times faster than counting them.
_LONG = 4096


def _opening(data: bytes, enough: int) -> int:
    """Count opening brackets, though of a long text not many more than `enough`."""
    if len(data) < _LONG:
        return data.count(b"[") + data.count(b"{")
    found = 0
    for bracket in (b"[", b"{"):
        at = data.find(bracket)
        while at >= 0 and found <= enough:
            found += 1
            at = data.find(bracket, at + 1)
    return found


def surely_shallow(data: bytes, depth: int) -> bool:
    """True when the JSON text cannot be nested deeper than `depth`; a False only means: count in the value.

    Works on whole buffers, so a wide message costs a few passes at memory speed instead of a walk in Python.
    """
    if _opening(data, depth) <= depth:
        return True
    if b"\\" in data:
        return False
    # Quotes that stand side by side are strings without brackets; a quote left over means a bracket in a
    # string.
    shape = data.translate(_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in shape:
        return False
    for _ in range(depth):
        if not shape:
            return True
        shape = shape.replace(b"()", b"")
    return not shape


def depth_exceeds(value: Any, depth: int) -> bool:
    """True when lists and mappings are nested deeper than `depth`; ends on values that contain themselves."""
    seen: dict[int, int] = {}
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, level = todo.pop()
        if not isinstance(item, (list, tuple, dict)):
            continue
        if level > depth:
            return True
        # An item reached by several ways (yaml aliases) is looked into again only from a deeper place.
        if seen.get(id(item), 0) >= level:
            continue
        seen[id(item)] = level
        children = item.values() if isinstance(item, dict) else item
        todo.extend((child, level + 1) for child in children if isinstance(child, (list, tuple, dict)))
    return False


# --- tagged types -----------------------------------------------------------------------------------------


def _tag(marker: str, value: Any) -> dict[str, Any]:
    return {"__type__": marker, "__value__": value}


def _default(value: Any) -> Any:
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    for kind, (marker, encoder) in _encoders.items():
        if isinstance(value, kind):
            return encoder(value) if marker is None else _tag(marker, encoder(value))
    if isinstance(value, bytes):
        try:
            return _tag("bytes", value.decode("utf-8"))
        except UnicodeDecodeError:
            return _tag("base64", base64.b64encode(value).decode("ascii"))
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} has no json form; pass plain values, "
        "give the class a __json__ method, or register it with register_type"
    )


def _untag(mapping: dict[str, Any]) -> Any:
    if mapping.keys() != _TAG_KEYS:
        return mapping
    marker = mapping["__type__"]
    decoder = _decoders.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(f"the json holds a value of the unknown type {str(marker)[:64]!a}")
    return decoder(mapping["__value__"])


def _read_decimal(text: str) -> Decimal:
    if len(text) > DEFAULT_LIMITS.int_digits:
        raise MessageRefused(f"the json holds a decimal of more than {DEFAULT_LIMITS.int_digits} characters")
    return Decimal(text)


def _read_uuid(fields: dict[str, str]) -> UUID:
    return UUID(hex=fields["hex"])


def _read_date(text: str) -> date:
    return datetime.fromisoformat(text).date()


def register_type(kind: type, marker: str | None, encoder: Encoder, decoder: Decoder = lambda value: value) -> None:
    """Let json carry a type of yours as `{"__type__": marker, "__value__": encoder(value)}`.

    With the marker None the encoder's result is written as it is and comes back as that. Both sides must
    register
    the type. Celery: `kombu.utils.json.register_type`.
    """
    _encoders[kind] = (marker, encoder)
    if marker is not None:
        _decoders[marker] = decoder


def unregister_type(kind: type) -> None:
    """Forget a type given to `register_type`; unknown types are no error."""
    marker, _ = _encoders.pop(kind, (None, None))
    if marker is not None:
        _decoders.pop(marker, None)


_encoders: dict[type, tuple[str | None, Encoder]] = {}
_decoders: dict[str, Decoder] = {
    "bytes": lambda text: text.encode("utf-8"),
    "base64": base64.b64decode,
}
_tagged_encoder = json.JSONEncoder(default=_default)

# datetime before date: a datetime is a date too, and the first match wins.
register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, _read_date)
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(Decimal, "decimal", str, _read_decimal)
register_type(UUID, "uuid", lambda value: {"hex": value.hex}, _read_uuid)
