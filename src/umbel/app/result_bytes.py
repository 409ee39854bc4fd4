"""How results are written into a store and read again, whether states of tasks or parts of chords."""

from __future__ import annotations

from typing import Any

from umbel.app import exceptions_io
from umbel.core import compression, json_types, serialization

__all__ = ["compressed", "exception_fields", "read", "serialized"]

#: What Celery 5.7 puts before a compressed result; the mime type of the compression and a zero byte follow.
_COMPRESSED = b"\x00celery-compressed\x00"


def serialized(conf: Any, value: Any) -> bytes:
    """Return a value as `result_serializer` writes it; EncodeError where that cannot be done."""
    serializer: str = conf.result_serializer
    return json_types.dumps(value) if serializer == "json" else serialization.dumps(value, serializer).data


def compressed(conf: Any, data: bytes) -> bytes:
    """Return what was serialized under `result_compression`."""
    if conf.result_compression is None:
        return data
    packed, mime = compression.compress(data, conf.result_compression)
    return b"%b%b\x00%b" % (_COMPRESSED, mime.encode(), packed)


def read(conf: Any, data: bytes, opening: bytes) -> Any:
    """Return the value in stored bytes, whichever compression wrote them; DecodeError where they cannot be read.

    `opening` is the bracket with which it begins as JSON. What is not JSON is read with `result_serializer`, if
    `result_accept_content` (or `accept_content`) allows that.
    """
    if data.startswith(_COMPRESSED):
        mime, _, packed = data[len(_COMPRESSED) :].partition(b"\x00")
        data = compression.decompress(packed, mime.decode("ascii", "replace"), max_bytes=conf.result_max_bytes)
    if data[:1] == opening:
        return json_types.loads(data)
    accept = serialization.accept_set(conf.result_accept_content or conf.accept_content)
    return serialization.loads(data, serialization.content_type_of(conf.result_serializer), "binary", accept)


def exception_fields(conf: Any, exc: BaseException) -> dict[str, Any]:
    """Return an exception as the fields that results keep of it, of which `result_serializer` can write each."""

    def writable(value: Any) -> bool:
        try:
            serialization.dumps(value, conf.result_serializer)
        except Exception:  # noqa: BLE001 - `__json__` or `__reduce__` of the user's class
            return False
        return True

    return exceptions_io.to_dict(exc, writable)
