"""The head of a message: Celery's envelope without its body, written from templates and read into a typed
view.

Its JSON has the keys content-encoding, content-type, headers and, always last and never empty, properties,
so that an engine can add a body in front and properties at the end without decoding it (see
`protocol.write_envelope`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from umbel.core import json_types
from umbel.core.errors import EncodeError
from umbel.core.limits import DEFAULT_LIMITS

__all__ = [
    "PROTOCOL_HEADERS",
    "BatchHeads",
    "Head",
    "HeadFields",
    "HeadTemplate",
    "Quarantined",
    "custom_headers",
    "format_time",
]

#: The headers of protocol 2 in the order in which they are written; every other header is the user's own.
PROTOCOL_HEADERS = (
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
)
#: Reserved words and what brokers and Celery's workers add to the headers of a message.
_NOT_CUSTOM = frozenset({*PROTOCOL_HEADERS, "meth", "redelivered"})

_WRITTEN = frozenset(PROTOCOL_HEADERS) - {"compression"}

_encode = msgspec.json.Encoder().encode
Timelimit = tuple[float | None, float | None]
NO_TIMELIMIT: Timelimit = (None, None)


class Quarantined(msgspec.Struct, frozen=True):
    """What came in is not a message that can be run; `reason` says why in plain words."""

    reason: str


class Head(msgspec.Struct, kw_only=True, gc=False):
    """The typed view that a consumer works with; times are epoch seconds, None where the message has none."""

    task: str
    id: str
    retries: int = 0
    eta: float | None = None
    expires: float | None = None
    #: (hard, soft) in seconds.
    timelimit: Timelimit = NO_TIMELIMIT
    reply_to: str | None = None
    correlation_id: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: None: the message does not say, so the task's own option decides.
    ignore_result: bool | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    shadow: str | None = None
    lang: str | None = None
    priority: int | None = None
    delivery_mode: int | None = None
    compression: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    replaced_task_nesting: int = 0
    #: Version of Celery's task message protocol that the message came in: 1 or 2.
    protocol: int = 2

    @property
    def delivery_info(self) -> dict[str, Any]:
        """As `request.delivery_info` shows it (Celery: exchange, routing_key, priority, redelivered)."""
        return {
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            "priority": self.priority,
            "redelivered": self.redelivered,
        }


class HeadFields(msgspec.Struct, gc=False):
    """The headers that differ from call to call, in the order in which they travel.

    `eta` and `expires` are ISO texts with an offset (see `format_time`); `timelimit` is (hard, soft) in
    seconds.
    """

    id: str
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    timelimit: Timelimit = NO_TIMELIMIT
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool = False
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = {}


class HeadTemplate:
    """Writes the heads of one task on one route; what never changes is encoded once.

    `headers` are further static headers; they and those of a call stand flat beside the protocol's own and
    win
    over them, as in Celery. Make one per combination and keep it.
    """

    __slots__ = ("_collides", "_end", "_headers", "_middle", "_prefix", "_properties", "_static", "task")

    def __init__(
        self,
        task: str,
        *,
        content_type: str = "application/json",
        content_encoding: str = "utf-8",
        compression: str | None = None,
        exchange: str = "",
        routing_key: str = "",
        priority: int | None = None,
        delivery_mode: int = 2,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        self.task = task
        static = {"content-encoding": content_encoding, "content-type": content_type}
        self._static = static
        self._headers = dict(headers or {})
        if compression is not None:
            self._headers["compression"] = compression
        self._properties = {
            "delivery_mode": delivery_mode,
            "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            "priority": priority or 0,
        }
        first = _dump({"lang": "py", "task": task})[:-1] + b","
        self._prefix = _dump(static)[:-1] + b',"headers":' + first
        extra = b"," + _dump(self._headers)[1:-1] if self._headers else b""
        self._middle = extra + b'},"properties":{"correlation_id":'
        self._end = b"," + _dump(self._properties)[1:] + b"}"
        self._collides = not _WRITTEN.isdisjoint(self._headers)

    def write(
        self,
        fields: HeadFields,
        *,
        reply_to: str = "",
        correlation_id: str | None = None,
        expiration: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the head of one message; EncodeError when a header has no JSON form.

        `root_id` left None becomes the id. `correlation_id` is the task id unless given; `expiration` is
        the time
        to live in milliseconds, as text.
        """
        if fields.root_id is None:
            fields.root_id = fields.id
        if headers or self._collides or fields.stamps:
            return self._write_general(fields, reply_to, correlation_id, expiration, headers)
        try:
            variable = _encode(fields)
            end = self._end
            if expiration is not None:
                end = b',"expiration":' + _encode(expiration) + end
            return b"".join(
                (
                    self._prefix,
                    variable[1:-1],
                    self._middle,
                    _encode(correlation_id or fields.id),
                    b',"reply_to":',
                    _encode(reply_to),
                    end,
                )
            )
        except (UnicodeEncodeError, TypeError):
            return self._write_general(fields, reply_to, correlation_id, expiration, headers)

    def _write_general(
        self,
        fields: HeadFields,
        reply_to: str,
        correlation_id: str | None,
        expiration: str | None,
        headers: Mapping[str, Any] | None,
    ) -> bytes:
        properties: dict[str, Any] = {"correlation_id": correlation_id or fields.id, "reply_to": reply_to}
        if expiration is not None:
            properties["expiration"] = expiration
        everything = {"lang": "py", "task": self.task, **msgspec.structs.asdict(fields), **self._headers}
        if headers:
            everything.update(headers)
            if "compression" in self._headers:  # says how the body is packed: not the user's to change
                everything["compression"] = self._headers["compression"]
        head = _dump({**self._static, "headers": everything, "properties": {**properties, **self._properties}})
        if len(head) > DEFAULT_LIMITS.headers_bytes:
            raise EncodeError(
                f"the message headers take {len(head)} bytes, more than the {DEFAULT_LIMITS.headers_bytes} "
                "that a worker reads; send large values as arguments"
            )
        return head


class BatchHeads:
    """Writes the heads of many calls that differ in nothing but their id and the texts of their arguments.

    Where `fields` has a group, they are its members, and differ in their index too. Its root is that of all, or each
    call is its own.
    """

    __slots__ = ("_after_index", "_pieces", "_root")

    def __init__(self, template: HeadTemplate, fields: HeadFields, *, reply_to: str = "") -> None:
        """Take one head apart: `fields` gives what all have in common; its id and texts do not count."""
        self._root = None if fields.root_id is None else _encode(fields.root_id)
        fields.id, fields.root_id = _MARK_ID, _MARK_ROOT
        fields.argsrepr, fields.kwargsrepr = _MARK_ARGS, _MARK_KWARGS
        fields.group_index = None if fields.group is None else _MARK_INDEX
        head = template.write(fields, reply_to=reply_to)
        first, rest = head.split(_encode(_MARK_ID), 1)
        root, rest = rest.split(_encode(_MARK_ROOT), 1)
        root, _, self._after_index = root.partition(b"%d" % _MARK_INDEX)
        before_args, rest = rest.split(_encode(_MARK_ARGS), 1)
        before_kwargs, rest = rest.split(_encode(_MARK_KWARGS), 1)
        before_correlation, last = rest.split(_encode(_MARK_ID), 1)
        self._pieces = (first, root, before_args, before_kwargs, before_correlation, last)

    def write(self, task_id: str, argsrepr: str, kwargsrepr: str, index: int | None = None) -> bytes:
        """Return the head of one message; raises UnicodeEncodeError for texts that are no Unicode."""
        first, root, before_args, before_kwargs, before_correlation, last = self._pieces
        if index is not None:
            root = b"%b%d%b" % (root, index, self._after_index)
        name = _encode(task_id)
        return b"".join(
            (
                first, name, root, self._root or name, before_args, _encode(argsrepr), before_kwargs,
                _encode(kwargsrepr), before_correlation, name, last,
            )
        )  # fmt: skip


#: Stand for what differs; no header of a user can hold them, being refused as unprintable where it matters.
_MARK_ID, _MARK_ARGS, _MARK_KWARGS = "\x00id\x00", "\x00args\x00", "\x00kwargs\x00"
_MARK_ROOT = "\x00root\x00"
_MARK_INDEX = 7_300_000_000_000_000_001


def _dump(value: Mapping[str, Any]) -> bytes:
    try:
        return json_types.dumps(value)
    except EncodeError as error:
        raise EncodeError(f"a message header cannot be sent: {error}") from error


def format_time(epoch: float) -> str:
    """Return the time (epoch seconds) as the ISO text with offset that `eta` and `expires` carry."""
    return datetime.fromtimestamp(epoch, UTC).isoformat()


def custom_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that are the user's own (Celery: `request.headers`); stamps travel under theirs."""
    return {key: value for key, value in headers.items() if key not in _NOT_CUSTOM}
