"""Which state a stored meta tells, whoever wrote it: JSON, compressed, or another `result_serializer` of Celery."""

from __future__ import annotations

import re

import msgspec

from umbel.core import compression
from umbel.core.errors import SerializationError

__all__ = ["state_of"]

_COMPRESSED = b"\x00celery-compressed\x00"
#: More than this is not unpacked only to look at its state (bytes).
_LARGEST = 64 << 20


class _Meta(msgspec.Struct, gc=False):
    status: str


_read_json = msgspec.json.Decoder(_Meta).decode
_read_msgpack = msgspec.msgpack.Decoder(_Meta).decode
#: How nearly every meta begins: the status is its first field.
_FIRST = re.compile(rb'\{\s*"status":\s*"([A-Za-z0-9_.:-]+)"')
_YAML = re.compile(rb"^status: ['\"]?([A-Za-z0-9_.:-]+)", re.MULTILINE)
#: What stands between the key and the text in a pickle of any protocol since 2, with the length of the text. Nothing
#: is unpickled here.
_PICKLE = re.compile(rb"status(?:\x94|q.|r....)?(?:\x8c(.)|X(.{4}))", re.DOTALL)


def state_of(meta: bytes) -> str:
    """Return the state; "" where it cannot be told."""
    found = _FIRST.match(meta)
    if found is not None:
        return found[1].decode()
    if meta.startswith(_COMPRESSED):
        mime, _, packed = meta[len(_COMPRESSED) :].partition(b"\x00")
        try:
            return state_of(compression.decompress(packed, mime.decode("ascii", "replace"), max_bytes=_LARGEST))
        except SerializationError:
            return ""
    if meta[:1] == b"{":
        return _status(_read_json, meta)
    if meta[:1] == b"\x80" and meta[1:2] < b"\x10":
        found = _PICKLE.search(meta)
        if found is None:
            return ""
        size = int.from_bytes(found[1] or found[2], "little")
        return meta[found.end() : found.end() + size].decode("utf-8", "replace")
    found = _YAML.search(meta)
    return found[1].decode() if found is not None else _status(_read_msgpack, meta)


def _status(read: object, meta: bytes) -> str:
    try:
        return str(read(meta).status)  # type: ignore[operator]
    except msgspec.MsgspecError:
        return ""
