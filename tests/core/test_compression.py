"""Compressed content comes back as it was, and no bomb is blown up."""

from __future__ import annotations

import tracemalloc

import pytest

from umbel.core import compression
from umbel.core.errors import DecodeError, ImproperlyConfigured, MessageRefused

METHODS = ["gzip", "bzip2", "lzma", "brotli", "zstd"]
TEXT = b"some text that repeats " * 50


@pytest.mark.parametrize("name", METHODS)
def test_content_comes_back_under_its_name_and_its_mime_type(name: str) -> None:
    packed, mime = compression.compress(TEXT, name)
    assert len(packed) < len(TEXT)
    assert compression.decompress(packed, mime) == compression.decompress(packed, name) == TEXT
    empty, _ = compression.compress(b"", name)
    assert compression.decompress(empty, mime) == b""


@pytest.mark.parametrize("name", METHODS)
def test_a_bomb_is_refused_without_being_blown_up(name: str) -> None:
    bomb, mime = compression.compress(b"\0" * 30_000_000, name)
    tracemalloc.start()
    with pytest.raises(MessageRefused, match="decompresses to more than"):
        compression.decompress(bomb, mime, max_bytes=2_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000


@pytest.mark.parametrize("name", METHODS)
def test_damaged_content_is_a_decode_error(name: str) -> None:
    packed, mime = compression.compress(TEXT, name)
    for damaged in (packed[:-4], packed[:3], b"", b"junk" * 10):
        with pytest.raises(DecodeError):
            compression.decompress(damaged, mime)


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"rar.*gzip"):
        compression.compress(b"", "rar")
    with pytest.raises(DecodeError, match="rar"):
        compression.decompress(b"", "rar")


def test_a_registered_method_works_until_it_is_unregistered() -> None:
    compression.register(lambda data: data[::-1], lambda data, limit: data[::-1], "x/mirror", ["mirror"])
    try:
        assert compression.compress(b"ab", "mirror") == (b"ba", "x/mirror")
        assert compression.decompress(b"ba", "x/mirror") == b"ab"
    finally:
        compression.unregister("x/mirror")
    assert "mirror" not in compression.names()
