"""AMQP's tables and basic properties, as bytes and as values.

Read and written are the types that py-amqp (and with it Celery) reads and writes: texts, whole numbers, floats,
booleans, nothing, bytes, decimals, timestamps, lists and mappings.
"""

from __future__ import annotations

import calendar
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from typing import Any

__all__ = ["SHORT_TEXTS", "TEXT", "TableError", "end_of_value", "read_properties", "write_properties", "write_table"]

_U8 = Struct(">B").unpack_from
_U32 = Struct(">I").unpack_from
_I32 = Struct(">i").unpack_from
_U64 = Struct(">Q").unpack_from
_pack_u32: Callable[[int], bytes] = Struct(">I").pack
_pack_text = Struct(">cI").pack
_pack_int = Struct(">ci").pack
_pack_long = Struct(">cq").pack
_pack_double = Struct(">cd").pack
_pack_decimal = Struct(">cBi").pack
_pack_time = Struct(">cQ").pack
_pack_flags = Struct(">H").pack
_pack_u64 = Struct(">Q").pack

_SIMPLE = {
    ord(letter): Struct(form)
    for letter, form in {
        "b": ">b", "B": ">B", "U": ">h", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "L": ">q", "l": ">q",
        "f": ">f", "d": ">d",
    }.items()
}  # fmt: skip
TEXT, _VOID, _INT, _BOOL, _TABLE, _LIST = b"SVItFA"
_TIME, _BYTES, _DECIMAL = b"TxD"
#: Letters whose values have no exact form in plain JSON.
_SPECIAL = frozenset(b"TxDfd")


class TableError(ValueError):
    """The bytes are no table, or the value has no form in one."""


# --- reading ----------------------------------------------------------------------------------------------


def _read_item(buf: bytes, at: int, seen: set[int], depth: int) -> tuple[Any, int]:
    kind = buf[at]
    at += 1
    if kind in (TEXT, _BYTES):
        end = at + 4 + _U32(buf, at)[0]
        raw = buf[at + 4 : end]
        if kind == TEXT:
            try:
                return raw.decode(), end
            except UnicodeDecodeError:
                pass
        seen.add(_BYTES)
        return raw, end
    if kind == _VOID:
        return None, at
    if kind == _BOOL:
        return bool(buf[at]), at + 1
    simple = _SIMPLE.get(kind)
    if simple is not None:
        seen.add(kind)
        return simple.unpack_from(buf, at)[0], at + simple.size
    if kind in (_TABLE, _LIST):
        if depth <= 0:
            raise TableError("the headers are nested too deeply")
        return (_read_table if kind == _TABLE else _read_list)(buf, at, seen, depth - 1)
    seen.add(kind)
    if kind == _TIME:
        return datetime.fromtimestamp(_U64(buf, at)[0], UTC).replace(tzinfo=None), at + 8
    if kind == _DECIMAL:
        return Decimal(_I32(buf, at + 1)[0]) / (Decimal(10) ** buf[at]), at + 5
    raise TableError(f"the headers hold a value of the unknown type {bytes((kind,))!r}")


def end_of_value(buf: bytes, at: int) -> int:
    """Return where a value of a table ends that is known to be well-formed and begins, with its type, at `at`."""
    return _read_item(buf, at, set(), len(buf))[1]


def _read_list(buf: bytes, at: int, seen: set[int], depth: int) -> tuple[list[Any], int]:
    end = at + 4 + _U32(buf, at)[0]
    at += 4
    items = []
    while at < end:
        item, at = _read_item(buf, at, seen, depth)
        items.append(item)
    return items, at


def _read_table(buf: bytes, at: int, seen: set[int], depth: int) -> tuple[dict[str, Any], int]:
    end = at + 4 + _U32(buf, at)[0]
    at += 4
    table: dict[str, Any] = {}
    while at < end:
        stop = at + 1 + buf[at]
        key = buf[at + 1 : stop].decode("utf-8", "backslashreplace")
        # Written out for what nearly all headers are: this loop runs a score of times for every message.
        kind = buf[stop]
        if kind == TEXT:
            at = stop + 5 + _U32(buf, stop + 1)[0]
            try:
                table[key] = buf[stop + 5 : at].decode()
            except UnicodeDecodeError:
                seen.add(_BYTES)
                table[key] = buf[stop + 5 : at]
        elif kind == _VOID:
            table[key] = None
            at = stop + 1
        elif kind == _INT:
            table[key] = _I32(buf, stop + 1)[0]
            at = stop + 5
        else:
            table[key], at = _read_item(buf, stop, seen, depth)
    return table, at


SHORT_TEXTS = (
    (0x0400, "correlation_id"),
    (0x0200, "reply_to"),
    (0x0100, "expiration"),
    (0x0080, "message_id"),
)
_LAST_TEXTS = (
    (0x0020, "type"),
    (0x0010, "user_id"),
    (0x0008, "app_id"),
    (0x0004, "cluster_id"),
)


def _read_short(buf: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + buf[at]
    return buf[at + 1 : end].decode("utf-8", "backslashreplace"), end


def _read_rare(buf: bytes, at: int, flags: int, properties: dict[str, Any]) -> None:
    if flags & 0x0040:
        properties["timestamp"] = _U64(buf, at)[0]
        at += 8
    for flag, name in _LAST_TEXTS:
        if flags & flag:
            properties[name], at = _read_short(buf, at)


def read_properties(buf: bytes, at: int = 0, depth: int = 100) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return (properties, headers, whether JSON carries the headers as they are); TableError for anything else.

    The properties have py-amqp's names; content_type and content_encoding are among them.
    """
    properties: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    seen: set[int] = set()
    try:
        flags = buf[at] << 8 | buf[at + 1]
        at += 2
        if flags & 0x8000:
            properties["content_type"], at = _read_short(buf, at)
        if flags & 0x4000:
            properties["content_encoding"], at = _read_short(buf, at)
        if flags & 0x2000:
            headers, at = _read_table(buf, at, seen, depth)
        if flags & 0x1000:
            properties["delivery_mode"] = buf[at]
            at += 1
        if flags & 0x0800:
            properties["priority"] = buf[at]
            at += 1
        for flag, name in SHORT_TEXTS:
            if flags & flag:
                properties[name], at = _read_short(buf, at)
        if flags & 0x007C:
            _read_rare(buf, at, flags, properties)
    except (struct.error, IndexError, OverflowError, ValueError, OSError, RecursionError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"the headers cannot be read: {error}") from error
    return properties, headers, seen.isdisjoint(_SPECIAL)


# --- writing ----------------------------------------------------------------------------------------------


def _write_item(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        raw: bytes = value.encode("utf-8", "surrogatepass")
        return _pack_text(b"S", len(raw)) + raw
    if value is None:
        return b"V"
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, (str, bytes)):
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        return _pack_text(b"S", len(raw)) + raw
    if isinstance(value, float):
        return _pack_double(b"d", value)
    if isinstance(value, int):
        return _pack_int(b"I", value) if -0x7FFFFFFF <= value <= 0x7FFFFFFF else _pack_long(b"L", value)
    return _write_rare(value)


def _write_rare(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return b"F" + write_table(value)
    if isinstance(value, (list, tuple)):
        raw = b"".join(map(_write_item, value))
        return _pack_text(b"A", len(raw)) + raw
    if isinstance(value, datetime):
        return _pack_time(b"T", calendar.timegm(value.utctimetuple()))
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        if isinstance(exponent, int):
            number = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
            return _pack_decimal(b"D", max(-exponent, 0), -number if sign else number)
    # Everything else travels as the text that JSON would carry.
    return _write_item(str(value))


_keys: dict[str, bytes] = {}


def _key(name: Any) -> bytes:
    raw = str(name).encode("utf-8", "surrogatepass")
    if len(raw) > 255:
        raise TableError(f"the name of the header {str(name)[:40]!r}... is longer than 255 bytes")
    written = bytes((len(raw),)) + raw
    if len(_keys) < 1000 and isinstance(name, str):
        _keys[name] = written
    return written


def write_table(table: Mapping[Any, Any]) -> bytes:
    """Return the table with its length in front; TableError for a value that AMQP has no form for."""
    parts: list[bytes] = [b""]
    add = parts.append
    try:
        for name, value in table.items():
            key = _keys.get(name) or _key(name)
            if type(value) is str:
                raw = value.encode("utf-8", "surrogatepass")
                add(key + b"S" + _pack_u32(len(raw)) + raw)
            elif value is None:
                add(key + b"V")
            else:
                add(key + _write_item(value))
    except (struct.error, RecursionError, OverflowError) as error:
        raise TableError(f"a header cannot be sent over AMQP: {error}") from error
    whole = b"".join(parts)
    return _pack_u32(len(whole)) + whole


def _short(value: Any, name: str) -> bytes:
    raw = str(value).encode("utf-8", "surrogatepass")
    if len(raw) > 255:
        raise TableError(f"the property {name!r} is longer than 255 bytes")
    return bytes((len(raw),)) + raw


def write_properties(
    headers: Mapping[Any, Any], properties: Mapping[str, Any], content_type: Any, content_encoding: Any
) -> bytes:
    """Return flags and values of the basic properties; TableError for what has no form in AMQP."""
    flags = 0x2000
    parts: list[bytes] = []
    if content_type:
        flags |= 0x8000
        parts.append(_short(content_type, "content_type"))
    if content_encoding:
        flags |= 0x4000
        parts.append(_short(content_encoding, "content_encoding"))
    parts.append(write_table(headers))
    get = properties.get
    flags |= 0x1000
    parts.append(b"\x01" if get("delivery_mode") == 1 else b"\x02")
    priority = get("priority")
    if priority is not None:
        flags |= 0x0800
        parts.append(bytes((min(max(int(priority), 0), 255),)))
    for flag, name in SHORT_TEXTS:
        value = get(name)
        if value is not None and (value != "" or name == "reply_to"):
            flags |= flag
            parts.append(_short(value, name))
    if get("timestamp") is not None:
        flags |= 0x0040
        parts.append(_pack_u64(int(properties["timestamp"])))
    for flag, name in _LAST_TEXTS:
        value = get(name)
        # The broker closes the channel over a user name that is not the connection's own.
        if value and name != "user_id":
            flags |= flag
            parts.append(_short(value, name))
    return _pack_flags(flags) + b"".join(parts)
