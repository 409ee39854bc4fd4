"""What the members of a chord contribute to it: parts with Celery's payload, and the message that joins them.

The message of `umbel.join` travels with every part. Whoever completes the group publishes it, once; what it does is
in `umbel.app.flow_tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from umbel.app import exceptions_io, result_bytes
from umbel.app.canvas.publishing import keeps_plans
from umbel.app.flow_queue import derived_id, flow_message
from umbel.core import serialization, states
from umbel.core.errors import BackendStoreError, DecodeError, EncodeError, NotSupportedError
from umbel.core.message import GROWN, Message, Part, joinable

__all__ = [
    "Ended",
    "Place",
    "content_type_of",
    "decode_part",
    "encode_part",
    "join_message",
    "place_of",
    "part_of",
    "serializer_of",
    "values_of",
]

#: Longest text of an exception that is kept where its arguments cannot be written.
_SHORT_TEXT = 1024
#: Messages of joins that are kept, since the members of a group follow each other.
_MOST_KEPT = 64


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a task in the header of a chord; `chord` is the signature of the body."""

    group: str
    index: int | None
    chord: Mapping[str, Any]
    root_id: str | None = None
    #: The mime type of the message that says so: whoever reads that one can read what follows from it.
    content_type: str = serialization.JSON
    #: Name of the member's task, where it is known here.
    task: str = ""


class Ended(NamedTuple):
    """What a payload says: which task ended how, and its value or exception."""

    id: str
    state: str
    value: Any


def place_of(request: Any) -> Place | None:
    """Return the place in a chord that a request speaks of; None where the call is in none."""
    chord = request.chord
    if chord is None or not request.group:
        return None
    return Place(
        request.group, request.group_index, chord, request.root_id, content_type_of(request), request.task or ""
    )


def content_type_of(request: Any) -> str:
    """Return the mime type of the message that a request came in."""
    head = request._head
    return (head.content_type if head is not None else None) or serialization.JSON


def serializer_of(content_type: str) -> str:
    """Return the name of the serializer that writes a mime type."""
    if content_type == serialization.JSON:
        return "json"
    named = (name for name in serialization.names() if serialization.content_type_of(name) == content_type)
    return next(named, "json")


def part_of(app: Any, place: Place, task_id: str, state: str, value: Any) -> Part:
    """Return the part of a member that ended.

    Raises EncodeError or BackendStoreError where its value cannot be stored, and NotSupportedError for a member that
    has no index (senders before Celery 5.5) or where results go to no store that joins.
    """
    if not keeps_plans(app):
        raise NotSupportedError(
            f"the task {task_id} belongs to a chord, and this worker has no result store that could join it: set "
            "result_backend to that of the program which sent it"
        )
    if type(place.index) is not int:
        raise NotSupportedError(
            f"the message of {task_id} says that it belongs to a chord and not at which place: Celery numbers the "
            "members since 5.5, update the program that sends it"
        )
    if not any(joinable([Part(place.group, place.index, b"", member=task_id)])):
        raise NotSupportedError(f"the message of {task_id} names a place in a chord that no chord has")
    size = place.chord.get("chord_size")
    return Part(
        place.group,
        place.index,
        encode_part(app.conf, task_id, state, value),
        size if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= GROWN else None,
        join_message(app, place),
        task_id,
    )


def join_message(app: Any, place: Place) -> Message:
    """Return the message that goes on once the header of a chord is complete: the same for all its members."""
    kept: dict[str, tuple[Any, Message]] = app.__dict__.setdefault("_joins", {})
    known = kept.get(place.group)
    if known is not None and known[0] == place.chord:
        return known[1]
    message = flow_message(
        app,
        "umbel.join",
        (place.group, place.chord),
        task_id=derived_id(place.group, 0, "join"),
        root_id=place.root_id,
        serializer=serializer_of(place.content_type),
        known=place.task if place.task in app.tasks else "",
    )
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[place.group] = (place.chord, message)
    return message


def encode_part(conf: Any, task_id: str, state: str, value: Any) -> bytes:
    """Return the payload `[1, id, state, value]` as Celery's backends write it."""
    if not isinstance(value, BaseException):
        return _written(conf, task_id, state, value)
    fields = result_bytes.exception_fields(conf, value)
    try:
        return _written(conf, task_id, state, fields)
    except (EncodeError, BackendStoreError):
        short = {**fields, "exc_message": [exceptions_io.text_of(value)[:_SHORT_TEXT]]}
        return _written(conf, task_id, state, short)


def _written(conf: Any, task_id: str, state: str, value: Any) -> bytes:
    payload = [1, task_id, state, value]
    data = result_bytes.serialized(conf, payload)
    if len(data) > conf.result_max_bytes:
        raise BackendStoreError(
            f"the result of a chord's member takes {len(data)} bytes, more than result_max_bytes "
            f"({conf.result_max_bytes}) allows: return the place where the data is kept, or raise the setting",
            state=state,
            task_id=task_id,
        )
    return result_bytes.compressed(conf, data)


def decode_part(conf: Any, data: bytes) -> Ended:
    """Return what a payload says, whoever wrote it; DecodeError where it cannot be read."""
    payload = result_bytes.read(conf, data, b"[")
    if not isinstance(payload, (list, tuple)) or len(payload) != 4:
        raise DecodeError("a part of a chord is not a list of four")
    _, task_id, state, value = payload
    if state in states.EXCEPTION_STATES and value is not None:
        value = exceptions_io.from_dict(value)
    return Ended(str(task_id), str(state), value)


def values_of(ended: Sequence[Ended], saved: bytes | None) -> list[Any]:
    """Return the values of a header, which a body is given.

    `saved` is what producers keep (`core.flow.shaping`, Celery's too) of a header whose members end in groups: the
    values of such a group are a list of their own. Members that were added later come last.
    """
    flat = [one.value for one in ended]
    if saved is None:
        return flat
    values = {one.id: one.value for one in ended}
    try:
        _, members = msgspec.json.decode(saved)["result"]
        shaped = [_value_at(member, values) for member in members]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return flat
    return [*shaped, *values.values()]


def _value_at(described: Any, values: dict[str, Any]) -> Any:
    (task_id, _), members = described
    return values.pop(task_id) if members is None else [_value_at(member, values) for member in members]
