"""Compression of message bodies under the names and mime types of Celery, with capped decompression."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from umbel.core.errors import DecodeError, ImproperlyConfigured, MessageRefused
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.optional import load_optional

__all__ = ["compress", "decompress", "mime_type", "names", "register", "unregister"]

Compress = Callable[[bytes], bytes]
Decompress = Callable[[bytes, int], bytes]

# Enough for every preset of lzma and every standard level of zstd; bounds what a hostile header can ask for.
_WINDOW_BYTES = 128 * 1024 * 1024
_STEP_BYTES = 64 * 1024


class _Method(NamedTuple):
    mime: str
    compress: Compress
    decompress: Decompress


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """Return the compressed bytes and the mime type that goes into the header `compression`.

    `name` is a method's name, one of its aliases, or its mime type.
    """
    method = _method(name)
    return method.compress(data), method.mime


def decompress(
    data: bytes,
    name: str,
    *,
    max_bytes: int = DEFAULT_LIMITS.decompressed_bytes,
    max_ratio: int = DEFAULT_LIMITS.decompressed_ratio,
) -> bytes:
    """Return the decompressed bytes; `name` is a mime type, a name or an alias.

    No more than `max_bytes` are ever produced, and above 1 MiB no more than `max_ratio` times the
    compressed size:
    beyond that MessageRefused. Damaged or cut data and an unknown method are a DecodeError.
    """
    try:
        method = _method(name)
    except ImproperlyConfigured as error:
        raise DecodeError(str(error)) from error
    limit = min(max_bytes, max(len(data) * max_ratio, DEFAULT_LIMITS.ratio_free_bytes))
    try:
        plain = method.decompress(data, limit)
    except DecodeError:
        raise
    except ImproperlyConfigured as error:
        raise DecodeError(str(error)) from error
    except Exception as error:
        raise DecodeError(f"the content is not readable {method.mime}: {error}") from error
    if len(plain) > limit:
        raise MessageRefused(
            f"the content decompresses to more than {limit} bytes ({len(data)} compressed); "
            "raise the limits on decompressed size or ratio if such messages are meant"
        )
    return plain


def mime_type(name: str) -> str:
    """Return the mime type for a method's name or alias; ImproperlyConfigured names the known ones."""
    return _method(name).mime


def names() -> list[str]:
    """The method names and aliases that `compress` knows, sorted."""
    return sorted(_aliases)


def register(compress: Compress, decompress: Decompress, content_type: str, aliases: list[str] | None = None) -> None:
    """Add a method. `decompress(data, limit)` must stop once it made more than `limit` bytes.

    Celery: `kombu.compression.register`, whose decoder knows no limit.
    """
    _methods[content_type] = _Method(content_type, compress, decompress)
    for alias in aliases or ():
        _aliases[alias] = content_type


def unregister(content_type: str) -> None:
    """Forget a method and its aliases; an unknown one is no error."""
    _methods.pop(content_type, None)
    for alias in [alias for alias, mime in _aliases.items() if mime == content_type]:
        del _aliases[alias]


def _method(name: str) -> _Method:
    method = _methods.get(_aliases.get(name, name))
    if method is None:
        raise ImproperlyConfigured(f"unknown compression {str(name)[:64]!a}; use one of: {', '.join(names())}")
    return method


# --- the methods --------------------------------------------------------------------------------------------


def _bounded(decompressor: Any, data: bytes, limit: int) -> bytes:
    """Run one of the standard library's decompressors, which stop by themselves after `limit + 1` bytes."""
    plain: bytes = decompressor.decompress(data, limit + 1)
    if len(plain) <= limit:
        if not decompressor.eof:
            raise DecodeError("the compressed content is cut off")
        if decompressor.unused_data:
            raise DecodeError("bytes follow the compressed content")
    return plain


def _decompress_zlib(data: bytes, limit: int) -> bytes:
    return _bounded(zlib.decompressobj(), data, limit)


def _decompress_bz2(data: bytes, limit: int) -> bytes:
    return _bounded(bz2.BZ2Decompressor(), data, limit)


def _decompress_lzma(data: bytes, limit: int) -> bytes:
    return _bounded(lzma.LZMADecompressor(memlimit=_WINDOW_BYTES), data, limit)


def _brotli() -> Any:
    return load_optional("brotli", extra="brotli", purpose="compression 'brotli'")


def _zstandard() -> Any:
    return load_optional("zstandard", extra="zstd", purpose="compression 'zstd'")


def _compress_brotli(data: bytes) -> bytes:
    result: bytes = _brotli().compress(data)
    return result


def _decompress_brotli(data: bytes, limit: int) -> bytes:
    decompressor = _brotli().Decompressor()
    parts: list[bytes] = []
    size = 0
    feed = data
    while True:
        part = decompressor.process(feed, output_buffer_limit=_STEP_BYTES)
        parts.append(part)
        size += len(part)
        if size > limit or decompressor.is_finished():
            return b"".join(parts)
        if decompressor.can_accept_more_data() and not part:
            raise DecodeError("the compressed content is cut off")
        feed = b""


def _compress_zstd(data: bytes) -> bytes:
    result: bytes = _zstandard().ZstdCompressor().compress(data)
    return result


def _decompress_zstd(data: bytes, limit: int) -> bytes:
    decompressor = _zstandard().ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    view = memoryview(data)
    parts: list[bytes] = []
    size = 0
    # Small steps in: the worst expansion of one step stays far below the limits.
    for start in range(0, len(data), 256):
        if decompressor.eof:
            raise DecodeError("bytes follow the compressed content")
        part = decompressor.decompress(view[start : start + 256])
        parts.append(part)
        size += len(part)
        if size > limit:
            return b"".join(parts)
    if not decompressor.eof:
        raise DecodeError("the compressed content is cut off")
    if decompressor.unused_data:
        raise DecodeError("bytes follow the compressed content")
    return b"".join(parts)


_methods: dict[str, _Method] = {}
_aliases: dict[str, str] = {}

# Celery calls zlib's own format "gzip"; the bytes have no gzip header.
register(zlib.compress, _decompress_zlib, "application/x-gzip", ["gzip", "zlib"])
register(bz2.compress, _decompress_bz2, "application/x-bz2", ["bzip2", "bzip"])
register(lzma.compress, _decompress_lzma, "application/x-lzma", ["lzma", "xz"])
register(_compress_brotli, _decompress_brotli, "application/x-brotli", ["brotli"])
register(_compress_zstd, _decompress_zstd, "application/zstd", ["zstd", "zstandard"])
