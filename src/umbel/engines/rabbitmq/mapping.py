"""Between messages and what travels over AMQP: head and body here, properties, header table and frames there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from struct import Struct
from typing import Any

import msgspec

from umbel.core import json_types
from umbel.core.envelope import JSON_ONLY, upgrade_head
from umbel.core.errors import DecodeError, EncodeError
from umbel.core.head import Quarantined
from umbel.core.head_reader import parse_time, read_head, show
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.message import Delivery, Message
from umbel.engines.rabbitmq.connection import MESSAGES, Content
from umbel.engines.rabbitmq.delays import undelayed
from umbel.engines.rabbitmq.forms import Forms
from umbel.engines.rabbitmq.tables import TableError, write_properties

__all__ = ["Arrived", "frames", "publish_method", "read_delivery", "write_content"]

#: Headers of umbel's own on copies that it puts back: crashes and offers so far, not before, and the generation.
CRASHES, OFFERS, DUE, GENERATION = "umbel-crashes", "umbel-offers", "umbel-due", "umbel-generation"
#: On what is published again since the first confirm was lost: the first one may be stored too.
AGAIN = "umbel-again"
#: What RabbitMQ adds on the way; a message that is sent again begins without it (Celery filters x-death too).
_OWN = (CRASHES, OFFERS, DUE, GENERATION, AGAIN)
_DEATHS = (
    *("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"),
    *("x-last-death-exchange", "x-last-death-queue", "x-last-death-reason", "x-opt-deaths"),
)
_ADDED = frozenset({*_OWN, *_DEATHS, "x-delivery-count", "x-acquired-count"})
_NOTHING: Mapping[str, Any] = {}
_pack_frame = Struct(">BHI").pack
_pack_content = Struct(">IQ").pack
_read_long = Struct(">Q").unpack_from
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_TAGGED = b'"__type__"'
_CONTENT_CLASS = 60 << 16
_forms = Forms()
_LONGEST = (("task", DEFAULT_LIMITS.name_length), ("id", DEFAULT_LIMITS.id_length))


# --- out --------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raise EncodeError for the name of an exchange, a queue or a route that AMQP cannot carry."""
    # No character takes more than four bytes.
    if len(name) > 63 and len(name.encode("utf-8", "surrogatepass")) > 255:
        raise EncodeError(f"{name[:60]!r}... is longer than the 255 bytes that AMQP allows for a name")


def publish_method(exchange: str, routing_key: str) -> bytes:
    """Return the frame of basic.publish with `mandatory` set; EncodeError for names that AMQP cannot carry."""
    payload = [b"\x00\x3c\x00\x28\x00\x00"]
    for name in (exchange, routing_key):
        check_name(name)
        raw = name.encode("utf-8", "surrogatepass")
        payload += (bytes((len(raw),)), raw)
    payload.append(b"\x01")
    method = b"".join(payload)
    return _pack_frame(1, MESSAGES, len(method)) + method + b"\xce"


def frames(method: bytes, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of one message: the method's, the header's, those of the body."""
    size, most = len(body), frame_max - 8
    header = _pack_content(_CONTENT_CLASS, size) + properties
    parts = [method, _pack_frame(2, MESSAGES, len(header)), header, b"\xce"]
    if len(header) > most:
        raise EncodeError(f"the headers of a message take {len(header)} bytes, more than one frame of {most} carries")
    if 0 < size <= most:
        parts += (_pack_frame(3, MESSAGES, size), body, b"\xce")
    else:
        for start in range(0, size, most):
            piece = body[start : start + most]
            parts += (_pack_frame(3, MESSAGES, len(piece)), piece, b"\xce")
    return b"".join(parts)


def write_content(message: Message, now: float, extra: dict[str, Any] | None = None, *, delayed: bool = False) -> bytes:
    """Return the property bytes of a message; EncodeError for a head that has no form in AMQP.

    `extra` are headers to add. A message that is delayed carries no time to live, which would end its delay early;
    its header `expires` still ends it.
    """
    head = message.head
    try:
        raw = _decode(head) if _TAGGED not in head else json_types.loads(head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raw = json_types.loads(head)
    if not isinstance(raw, dict):
        raise EncodeError("the message's head is not a mapping")
    headers = raw.get("headers") or {}
    properties = raw.get("properties") or {}
    if not _ADDED.isdisjoint(headers):
        headers = {name: value for name, value in headers.items() if name not in _ADDED}
    if message.generation != _generation(headers):
        extra = {GENERATION: message.generation, **(extra or {})}
    if message.due > now and not headers.get("eta"):
        extra = {DUE: float(message.due), **(extra or {})}
    if extra:
        headers = {**headers, **extra}
    if message.priority != (properties.get("priority") or 0):
        properties = {**properties, "priority": message.priority}
    if properties.get("expiration") is not None:
        left = str(max(0, round((message.expires - now) * 1000))) if message.expires else properties["expiration"]
        properties = {**properties, "expiration": None if delayed else left}
    try:
        return write_properties(headers, properties, raw.get("content-type"), raw.get("content-encoding"))
    except TableError as error:
        raise EncodeError(f"task {message.task}: {error}") from error


# --- in ---------------------------------------------------------------------------------------------------


class Arrived(msgspec.Struct, gc=False):
    """What was delivered: a delivery, or (`reason`) why its message cannot be one."""

    delivery: Delivery
    number: int
    redelivered: bool
    #: How often a quorum queue has handed it out before; RabbitMQ drops it at the queue's x-delivery-limit.
    handed_out: int = 0
    reason: str = ""


def read_consumer(arguments: bytes) -> tuple[bytes, int]:
    """Return (consumer tag, delivery tag) of basic.deliver."""
    end = 1 + arguments[0]
    return arguments[1:end], int(_read_long(arguments, end)[0])


def read_delivery(queue: str, content: Content, accept: Collection[str] = JSON_ONLY) -> Arrived:
    """Return what a content of basic.deliver on `queue` is; never raises for what is in it.

    A protocol 1 message has its name in the body, which is decoded if `accept` allows that.
    """
    arguments, raw, body = content
    at = 1 + arguments[0]
    (number,) = _read_long(arguments, at)
    redelivered = bool(arguments[at + 8])
    at += 9
    end = at + 1 + arguments[at]
    exchange = arguments[at + 1 : end].decode("utf-8", "replace")
    routing_key = arguments[end + 1 : end + 1 + arguments[end]].decode("utf-8", "replace")
    if exchange.startswith("celery_delayed_"):
        exchange, routing_key = "", undelayed(routing_key)
    try:
        properties, headers, plain = _forms.read(raw, DEFAULT_LIMITS.depth)
    except TableError as error:
        return Arrived(Delivery("", "", queue, b"", body), number, redelivered, reason=str(error))
    added = _take_added(headers) if not _ADDED.isdisjoint(headers) else _NOTHING
    info = {"exchange": exchange, "routing_key": routing_key, "redelivered": redelivered}
    properties["delivery_info"] = info
    envelope = {
        "content-encoding": properties.pop("content_encoding", None),
        "content-type": properties.pop("content_type", None),
        "headers": headers,
        "properties": properties,
    }
    try:
        head = _encode(envelope) if plain else json_types.dumps(envelope)
    except (UnicodeEncodeError, EncodeError, ValueError, TypeError) as error:
        return Arrived(Delivery("", "", queue, b"", body), number, redelivered, reason=f"unreadable headers: {error}")
    if len(head) > DEFAULT_LIMITS.headers_bytes or len(body) > DEFAULT_LIMITS.message_bytes:
        reason = f"the message has {len(head)} bytes of headers and {len(body)} of body, more than the limit"
        return Arrived(Delivery("", "", queue, head, body), number, redelivered, reason=reason)
    arrived = Arrived(Delivery("", "", queue, head, body), number, redelivered)
    arrived.reason = _name(arrived.delivery, headers, accept)
    if not arrived.reason:
        _fill(arrived, headers, properties, added)
    return arrived


def _take_added(headers: dict[str, Any]) -> dict[str, Any]:
    """Take out what umbel put in, and what RabbitMQ says about the way through the delay levels."""
    added = {name: headers.pop(name) for name in _OWN if name in headers}
    added["x-delivery-count"] = headers.pop("x-delivery-count", 0)
    deaths = headers.get("x-death")
    if isinstance(deaths, list):
        kept = [each for each in deaths if not (isinstance(each, dict) and _is_level(each.get("queue")))]
        headers["x-death"] = kept
        if not kept:
            for name in _DEATHS:
                headers.pop(name, None)
    return added


def _is_level(queue: Any) -> bool:
    return isinstance(queue, str) and queue.startswith("celery_delayed_")


def _name(delivery: Delivery, headers: dict[str, Any], accept: Collection[str]) -> str:
    """Fill in id and task, from the body of a protocol 1 message if need be; return what is wrong, or ""."""
    if headers.get("task") is None:
        head = upgrade_head(delivery.head, delivery.body, accept)
        if isinstance(head, Quarantined):
            return head.reason
        delivery.head = head
        try:
            headers.update(json_types.loads(head)["headers"])
        except (DecodeError, KeyError, TypeError) as error:
            return f"the message cannot be read: {show(error)}"
    for name, longest in _LONGEST:
        value = headers.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            found = read_head(delivery.head)
            return found.reason if isinstance(found, Quarantined) else f"the header {name!r} is no name: {show(value)}"
    delivery.task, delivery.id = headers["task"], headers["id"]
    return ""


def _fill(arrived: Arrived, headers: dict[str, Any], properties: dict[str, Any], added: Mapping[str, Any]) -> None:
    """Fill in what an engine needs in order to deal with the message; what cannot be read is the worker's to refuse."""
    delivery = arrived.delivery
    delivery.priority = properties.get("priority") or 0
    eta, expires = headers.get("eta"), headers.get("expires")
    if eta:
        delivery.due = _time(eta)
    if expires:
        delivery.expires = _time(expires)
    delivery.generation = _generation(headers)
    if added:
        delivery.due = max(delivery.due, _number(added.get(DUE)))
        delivery.generation = int(_number(added.get(GENERATION))) or delivery.generation
        delivery.crashes = int(_number(added.get(CRASHES)))
        delivery.offers = int(_number(added.get(OFFERS)))
        delivery.doubtful = added.get(AGAIN) is True
        arrived.handed_out = int(_number(added.get("x-delivery-count")))


def _generation(headers: Mapping[str, Any]) -> int:
    """Return which message under its id this is: what takes the place of a task has its id too (`Task.replace`)."""
    found = 0
    for name in ("retries", "replaced_task_nesting"):
        number = headers.get(name)
        if number and isinstance(number, int):
            found += number
    return found


def _time(value: Any) -> float:
    text = value.isoformat() if hasattr(value, "isoformat") else value
    return (parse_time(text) or 0.0) if isinstance(text, str) else 0.0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0.0
