"""Stored task states: the meta that Celery's result backends keep, written and read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from umbel.app import exceptions_io, result_bytes
from umbel.app.lineage import shortened
from umbel.core import errors, json_types, serialization, states
from umbel.core.errors import BackendStoreError, DecodeError, EncodeError
from umbel.core.message import Record

__all__ = ["decode_meta", "encode_meta", "iso", "meta_of", "record_of", "result_of"]

#: Longest argument of an exception that is kept when the record would be too large with it.
_SHORT_TEXT = 1024


#: The last whole second and its text: most calls ask for the time of the same second.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def iso(now: float) -> str:
    """Return epoch seconds as the aware ISO 8601 text that results carry, to the microsecond."""
    global _second
    microseconds = round(now * 1_000_000)
    whole, rest = divmod(microseconds, 1_000_000)
    second, text = _second
    if whole != second:
        text = datetime.fromtimestamp(whole, UTC).isoformat()[:19]
        _second = (whole, text)
    return f"{text}.{rest:06d}+00:00"


class _Meta(msgspec.Struct, gc=False):
    """The meta of nearly every result: nothing but plain values, so that msgspec writes it directly."""

    status: str
    result: Any
    traceback: None
    #: Results as tuples of ids (`lineage`).
    children: Any
    date_done: str
    task_id: str


class _ChildMeta(_Meta, gc=False):
    parent_id: str


class _MemberMeta(_Meta, gc=False):
    group_id: str


class _ChildMemberMeta(_ChildMeta, gc=False):
    group_id: str


_write = msgspec.json.Encoder().encode


def _quick(task_id: str, result: Any, now: float, request: Any, children: Any) -> bytes | None:
    """The meta of a success without trimmings; None where it has to be written the long way."""
    if not json_types.is_plain(result):
        return None
    parent, group = request.parent_id, request.group
    fields = (states.SUCCESS, result, None, children, iso(now), task_id)
    try:
        if group is None:
            return _write(_Meta(*fields) if parent is None else _ChildMeta(*fields, parent))
        return _write(_MemberMeta(*fields, group) if parent is None else _ChildMemberMeta(*fields, parent, group))
    except (UnicodeEncodeError, ValueError):
        return None


def meta_of(
    task_id: str,
    state: str,
    result: Any,
    *,
    now: float,
    traceback: str | None = None,
    children: list[Any] | None = None,
    request: Any = None,
    extended: bool = False,
) -> dict[str, Any]:
    """Return the fields of a stored state, named and ordered as Celery's result backends write them.

    `request` adds `parent_id` and `group_id` where the call has them and, if `extended`, name, arguments,
    worker, retries and queue (setting `result_extended`). `date_done` is set for ready states only.
    """
    meta = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": children or [],
        "date_done": iso(now) if state in states.READY_STATES else None,
        "task_id": task_id,
    }
    if request is not None:
        if request.parent_id is not None:
            meta["parent_id"] = request.parent_id
        if request.group is not None:
            meta["group_id"] = request.group
        if extended:
            _extend(meta, request)
    return meta


def _extend(meta: dict[str, Any], request: Any) -> None:
    info = request.delivery_info or {}
    meta["name"] = request.task
    meta["args"] = list(request.args) if request.args is not None else None
    meta["kwargs"] = request.kwargs
    meta["worker"] = request.hostname
    meta["retries"] = request.retries
    meta["queue"] = info.get("routing_key")
    for name in request.stamped_headers or ():
        meta[name] = (request.stamps or {}).get(name)
    if request.stamped_headers:
        meta["stamped_headers"] = request.stamped_headers


def encode_meta(conf: Any, meta: dict[str, Any]) -> bytes:
    """Return the meta as bytes under `result_serializer` and `result_compression`.

    Raises EncodeError for a value that the serializer cannot write and BackendStoreError for more than
    `result_max_bytes`.
    """
    data = result_bytes.serialized(conf, meta)
    if len(data) > conf.result_max_bytes:
        raise BackendStoreError(
            f"the result takes {len(data)} bytes, more than result_max_bytes ({conf.result_max_bytes}) allows: "
            "return something smaller, such as the place where the data is kept, or raise the setting",
            state=meta["status"],
            task_id=meta["task_id"],
        )
    return result_bytes.compressed(conf, data)


def decode_meta(conf: Any, data: bytes) -> dict[str, Any]:
    """Return the meta that was stored (`result_bytes.read`); DecodeError when it cannot be read."""
    meta = result_bytes.read(conf, data, b"{")
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise DecodeError("a stored result is not a mapping with a status")
    return meta


def result_of(meta: dict[str, Any]) -> Any:
    """Return the value of a decoded meta; for failed, retried and revoked tasks the exception."""
    value = meta.get("result")
    if meta["status"] in states.EXCEPTION_STATES and value is not None:
        return exceptions_io.from_dict(value)
    return value


def record_of(
    app: Any,
    task_id: str,
    state: str,
    result: Any,
    *,
    now: float,
    traceback: str | None = None,
    children: list[Any] | None = None,
    request: Any = None,
    reply_to: str = "",
) -> Record:
    """Return the record of a state, ready for `Store.put`; an exception as `result` is written as its fields.

    Who asked for it is in the request; `reply_to` says it where there is none.
    A value that cannot be written raises EncodeError, a too large one BackendStoreError. An exception can
    always be written: what does not fit is replaced by its text.
    """
    conf = app.conf
    expires = conf.result_expires
    due = now + expires if expires else 0.0
    kept = [shortened(child) for child in children] if children else None
    asker = (request.reply_to if request is not None else reply_to) or ""
    if (
        state == states.SUCCESS
        and request is not None
        and conf.result_serializer == "json"
        and conf.result_compression is None
        and not conf.result_extended
    ):
        data = _quick(task_id, result, now, request, kept or ())
        if data is not None and len(data) <= conf.result_max_bytes:
            return Record(task_id, state, data, due, asker)
    meta = meta_of(
        task_id,
        state,
        result,
        now=now,
        traceback=traceback,
        children=kept,
        request=request,
        extended=conf.result_extended,
    )
    if isinstance(result, BaseException) and state in states.EXCEPTION_STATES:
        return Record(task_id, state, _encode_failure(conf, meta, result), due, asker)
    return Record(task_id, state, encode_meta(conf, meta), due, asker)


def _encode_failure(conf: Any, meta: dict[str, Any], exc: BaseException) -> bytes:
    """The meta of a failure; gives up, in this order, its object form, its extras and its length."""
    if conf.result_serializer == "pickle" and isinstance(exc, Exception) and _survives_pickle(exc):
        meta["result"] = exc
    else:
        meta["result"] = result_bytes.exception_fields(conf, exc)
    try:
        return encode_meta(conf, meta)
    except (EncodeError, BackendStoreError):
        pass
    fields = result_bytes.exception_fields(conf, exc)
    fields["exc_message"] = [exceptions_io.text_of(exc)[:_SHORT_TEXT]]
    kept = ("status", "date_done", "task_id", "parent_id", "group_id")
    small = {name: meta[name] for name in kept if name in meta}
    return encode_meta(conf, {**small, "result": fields, "traceback": None, "children": []})


def _survives_pickle(exc: Exception) -> bool:
    if type(exc).__module__ == errors.__name__:
        return False  # Celery's peers have no such module; named as data it is the class that both sides have
    accept = {"pickle"}
    try:
        written = serialization.dumps(exc, "pickle")
        back = serialization.loads(written.data, written.content_type, written.content_encoding, accept)
    except Exception:  # noqa: BLE001 - `__reduce__` of the user's class
        return False
    return type(back) is type(exc)
