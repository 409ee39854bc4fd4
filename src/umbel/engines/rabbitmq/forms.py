"""Headers that come in the same form again and again: what lies between their texts is read once.

The messages of one producer carry the same headers in the same order and mostly differ in texts: ids and arguments.
A form remembers the bytes between those texts, and what they mean, so that a message in a known form is compared in a
few pieces instead of being read value by value. What comes in no known form is read as any other.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Any, NamedTuple

from umbel.engines.rabbitmq.tables import SHORT_TEXTS, TEXT, end_of_value, read_properties

__all__ = ["Forms"]

_U32 = Struct(">I").unpack_from
#: So many forms are known at once.
_KNOWN = 8
#: Every so many messages in no known form, the form of one is learned.
_LEARN = 16
#: A form longer than this (bytes) is not worth its memory.
_LONGEST = 4096
_HEADERS, _RARE = 0x2000, 0x007C

_Read = tuple[dict[str, Any], dict[str, Any], bool]


class _Form(NamedTuple):
    """The bytes that messages have in common, and values with gaps for the texts that they do not."""

    #: Flags and properties before the headers.
    first: bytes
    #: For each text among the headers: what comes before its length, and its name.
    texts: tuple[tuple[bytes, int, str], ...]
    #: The headers after the last text, and the properties that are numbers.
    last: bytes
    #: The length of what of `last` belongs to the headers.
    rest: int
    #: Names of the properties that are texts.
    shorts: tuple[str, ...]
    properties: dict[str, Any]
    headers: dict[str, Any]

    def read(self, buf: bytes) -> _Read | None:
        """Return what `read_properties` would; None for bytes in another form. Nested values are shared."""
        if not buf.startswith(self.first):
            return None
        at = len(self.first) + 4
        end = at + _U32(buf, at - 4)[0]
        headers = self.headers.copy()
        for before, length, name in self.texts:
            if not buf.startswith(before, at):
                return None
            at += length
            stop = at + 4 + _U32(buf, at)[0]
            headers[name] = buf[at + 4 : stop].decode()
            at = stop
        if not buf.startswith(self.last, at) or at + self.rest != end:
            return None
        at += len(self.last)
        properties = self.properties.copy()
        for name in self.shorts:
            stop = at + 1 + buf[at]
            properties[name] = buf[at + 1 : stop].decode()
            at = stop
        return (properties, headers, True) if at == len(buf) else None


def _form_of(buf: bytes, properties: dict[str, Any], headers: dict[str, Any]) -> _Form | None:
    """Return the form of properties that have been read and that JSON carries as they are; None for a rare one."""
    flags = buf[0] << 8 | buf[1]
    if not flags & _HEADERS or flags & _RARE:
        return None
    at = 2
    for flag in (0x8000, 0x4000):
        if flags & flag:
            at += 1 + buf[at]
    first, since = buf[:at], at + 4
    end = since + int(_U32(buf, at)[0])
    at = since
    texts, names = [], []
    while at < end:
        stop = at + 1 + buf[at]
        names.append(buf[at + 1 : stop].decode())
        at = end_of_value(buf, stop)
        if buf[stop] == TEXT:
            texts.append((buf[since : stop + 1], stop + 1 - since, names[-1]))
            since = at
    if names != list(headers):
        return None
    numbers = bool(flags & 0x1000) + bool(flags & 0x0800)
    last = buf[since : end + numbers]
    if len(first) + len(last) + sum(length for _, length, _ in texts) > _LONGEST:
        return None
    shorts = tuple(name for flag, name in SHORT_TEXTS if flags & flag)
    return _Form(first, tuple(texts), last, end - since, shorts, dict(properties), dict(headers))


class Forms:
    """The forms in which messages have come lately."""

    def __init__(self) -> None:
        self._known: list[_Form] = []
        self._unknown = 0

    def read(self, buf: bytes, depth: int) -> _Read:
        """Return what `tables.read_properties` returns, sooner; nested values may be shared with other messages."""
        known = self._known
        try:
            for place, form in enumerate(known):
                found = form.read(buf)
                if found is not None:
                    if place:
                        self._known = [form, *known[:place], *known[place + 1 :]]
                    return found
        except (struct.error, IndexError, UnicodeDecodeError):
            pass
        found = read_properties(buf, 0, depth)
        if found[2] and self._unknown % _LEARN == 0:
            self._learn(buf, *found[:2])
        self._unknown += 1
        return found

    def _learn(self, buf: bytes, properties: dict[str, Any], headers: dict[str, Any]) -> None:
        try:
            form = _form_of(buf, properties, headers)
        except UnicodeDecodeError:
            return
        if form is not None:
            self._known = [form, *self._known[: _KNOWN - 1]]
