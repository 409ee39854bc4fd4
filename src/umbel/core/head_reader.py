"""Reads heads that anybody may have written: a total function from bytes to a `Head` or the reason why
not.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any, cast

import msgspec

from umbel.core import json_types
from umbel.core.errors import DecodeError
from umbel.core.head import NO_TIMELIMIT, Head, Quarantined, Timelimit
from umbel.core.limits import DEFAULT_LIMITS, Limits

__all__ = ["headers_of", "parse_time", "read_head", "reply_to_of", "show"]


class _DeliveryInfo(msgspec.Struct, gc=False):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool | None = None


class _Properties(msgspec.Struct, gc=False):
    reply_to: str | None = None
    correlation_id: str | None = None
    priority: int | None = None
    delivery_mode: int | None = None
    delivery_info: _DeliveryInfo | None = None


class _Headers(msgspec.Struct, gc=False):
    task: str
    id: str
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int | None = None
    timelimit: Timelimit | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    lang: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    compression: str | None = None
    redelivered: bool | None = None


class _Wire(msgspec.Struct, gc=False):
    headers: _Headers
    properties: _Properties
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")
    protocol: int = 2


_read_wire = msgspec.json.Decoder(_Wire).decode
_NO_INFO = _DeliveryInfo()


def read_head(head: bytes, limits: Limits = DEFAULT_LIMITS, zone: tzinfo = UTC) -> Head | Quarantined:
    """Return the typed view of a head, or why it cannot be run. Never raises.

    Times without an offset are in `zone` (Celery: UTC unless a version 1 message says otherwise).
    """
    try:
        if len(head) > limits.headers_bytes:
            return Quarantined(f"the headers have {len(head)} bytes, more than the limit of {limits.headers_bytes}")
        try:
            wire = _read_wire(head)
        except (msgspec.MsgspecError, RecursionError):
            tolerant = _read_tolerant(head, limits)
            if isinstance(tolerant, Quarantined):
                return tolerant
            wire = tolerant
        return _flatten(wire, limits, zone)
    except Exception as error:  # noqa: BLE001 - a total function
        return Quarantined(f"the headers cannot be read: {type(error).__name__}: {show(error)}")


def _flatten(wire: _Wire, limits: Limits, zone: tzinfo) -> Head | Quarantined:
    headers, properties = wire.headers, wire.properties
    reason = _check_names(headers, properties, limits)
    if reason:
        return Quarantined(reason)
    eta = expires = None
    if headers.eta:
        eta = parse_time(headers.eta, zone)
        if eta is None:
            return Quarantined(f"the header 'eta' is not a time: {show(headers.eta)}")
    if headers.expires:
        expires = parse_time(headers.expires, zone)
        if expires is None:
            return Quarantined(f"the header 'expires' is not a time: {show(headers.expires)}")
    info = properties.delivery_info or _NO_INFO
    return Head(
        task=headers.task,
        id=headers.id,
        retries=headers.retries or 0,
        eta=eta,
        expires=expires,
        timelimit=headers.timelimit or NO_TIMELIMIT,
        reply_to=properties.reply_to,
        correlation_id=properties.correlation_id,
        root_id=headers.root_id,
        parent_id=headers.parent_id,
        group=headers.group,
        group_index=headers.group_index,
        ignore_result=headers.ignore_result,
        argsrepr=headers.argsrepr,
        kwargsrepr=headers.kwargsrepr,
        origin=headers.origin,
        shadow=headers.shadow,
        lang=headers.lang,
        priority=properties.priority,
        delivery_mode=properties.delivery_mode,
        compression=headers.compression,
        content_type=wire.content_type,
        content_encoding=wire.content_encoding,
        exchange=info.exchange or "",
        routing_key=info.routing_key or "",
        redelivered=bool(headers.redelivered or info.redelivered),
        stamped_headers=headers.stamped_headers,
        stamps=headers.stamps,
        replaced_task_nesting=headers.replaced_task_nesting or 0,
        protocol=wire.protocol,
    )


def _check_names(headers: _Headers, properties: _Properties, limits: Limits) -> str:
    """Say what is wrong with the values that become keys, log lines and limits; "" when nothing is."""
    task, task_id = headers.task, headers.id
    if not task or len(task) > limits.name_length or not task.isprintable():
        return _bad_name("task", task, limits.name_length)
    if not task_id or len(task_id) > limits.id_length or not task_id.isprintable():
        return _bad_name("id", task_id, limits.id_length)
    for name, value in (
        ("root_id", headers.root_id),
        ("parent_id", headers.parent_id),
        ("group", headers.group),
        ("shadow", headers.shadow),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
    ):
        if value and (len(value) > limits.id_length or not value.isprintable()):
            return _bad_name(name, value, limits.id_length)
    for name, number in (("retries", headers.retries), ("priority", properties.priority)):
        if number and not 0 <= number < _LARGEST:
            return f"the header {name!r} is negative or too large: {show(number, 20)}"
    if headers.timelimit is not None and headers.timelimit != NO_TIMELIMIT:
        for seconds in headers.timelimit:
            if seconds is not None and not 0 <= seconds < _FOREVER:
                return f"the header 'timelimit' holds a number that is no duration: {seconds}"
    return ""


_LARGEST = 2**31  # what engines keep such numbers in
_FOREVER = 1e10  # seconds; some three centuries


def _bad_name(name: str, value: str, length: int) -> str:
    if not value:
        return f"the header {name!r} is empty"
    if len(value) > length:
        return f"the header {name!r} has {len(value)} characters, more than the limit of {length}"
    return f"the header {name!r} has characters that cannot be printed: {show(value)}"


def parse_time(text: str, zone: tzinfo = UTC) -> float | None:
    """Return the ISO text as epoch seconds, or None when it is no time or one that no clock can show."""
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=zone)
        return when.astimezone(UTC).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


# --- the slow, tolerant way -------------------------------------------------------------------------------


def _read_tolerant(head: bytes, limits: Limits) -> _Wire | Quarantined:
    """Read what the typed decoder refused: convert what is harmless, and find words for what is not."""
    try:
        raw = json_types.loads(head, limits.depth)
    except DecodeError as error:
        return Quarantined(f"the message is not readable: {show(error)}")
    if not isinstance(raw, dict):
        return Quarantined(f"the message is not a mapping but {_kind(raw)}")
    headers, properties = raw.get("headers"), raw.get("properties")
    if not isinstance(headers, dict):
        return Quarantined(f"the message has no headers (found {_kind(headers)})")
    if not isinstance(properties, dict):
        if properties is not None:
            return Quarantined(f"the message's properties are not a mapping but {_kind(properties)}")
        properties = {}
    for name in ("task", "id"):
        if name not in headers:
            return Quarantined(f"the header {name!r} is missing")
    headers = {key: _softened(key, value) for key, value in headers.items()}
    properties = {key: _softened(key, value) for key, value in properties.items()}
    for struct, values in ((_Headers, headers), (_Properties, properties)):
        reason = _first_misfit(struct, values)
        if reason:
            return Quarantined(reason)
    wire = {**raw, "headers": headers, "properties": properties}
    try:
        return msgspec.convert(wire, _Wire)
    except msgspec.ValidationError as error:
        return Quarantined(f"the message does not fit the task protocol: {show(error)}")


def _softened(name: str, value: Any) -> Any:
    """Turn spellings that other producers use into ours; leave everything else for the check."""
    if isinstance(value, datetime) and name in ("eta", "expires"):
        return value.isoformat()
    if name in ("priority", "retries", "group_index", "replaced_task_nesting", "delivery_mode"):
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and value.isdecimal() and len(value) < 10:
            return int(value)
    if name == "ignore_result" and isinstance(value, int) and value in (0, 1):
        return bool(value)
    if name == "stamped_headers" and isinstance(value, (list, tuple)):
        return [item if isinstance(item, str) else str(item) for item in value]
    return value


def _first_misfit(struct: type[msgspec.Struct], values: dict[Any, Any]) -> str:
    for field in msgspec.structs.fields(struct):
        if field.encode_name in values:
            value = values[field.encode_name]
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                return f"the header {field.encode_name!r} is wrong: {show(error)} (found {_kind(value)})"
    return ""


class _ReplyTo(msgspec.Struct, gc=False):
    reply_to: str | None = None


class _Addressed(msgspec.Struct, gc=False):
    properties: _ReplyTo


_read_address = msgspec.json.Decoder(_Addressed).decode


def reply_to_of(head: bytes) -> str:
    """Return where the sender of a message waits for its result; "" when it does not say."""
    try:
        return _read_address(head).properties.reply_to or ""
    except (msgspec.MsgspecError, RecursionError):
        return ""


def headers_of(head: bytes) -> dict[str, Any]:
    """Return all headers of a head, custom ones included, as decoded values; {} where there are none."""
    try:
        headers = cast("dict[str, Any]", json_types.loads(head)).get("headers")
    except (DecodeError, AttributeError):
        return {}
    return headers if isinstance(headers, dict) else {}


def show(value: object, length: int = 120) -> str:
    """Return a short ASCII text of something from outside that cannot forge log lines."""
    try:
        text = str(value)[: length + 1]
    except Exception:  # noqa: BLE001 - a total function
        return "<unprintable>"
    shown = text if text.isprintable() and text.isascii() else ascii(text)
    return shown if len(text) <= length else shown[:length] + "..."


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", tuple: "a list", str: "a text", type(None): "nothing"}
    if isinstance(value, (int, float)):
        return "a number"
    return names.get(type(value), type(value).__name__)
