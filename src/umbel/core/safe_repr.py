"""Short texts for the arguments of a call: bounded in size and depth, and never an exception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["arguments_repr", "safe_repr"]

MAX_LEVELS = 3
MAX_SIZE = 1024

_QUICK_ITEMS = 16
_QUICK_TEXT = 64
_QUICK_TYPES = frozenset({int, float, bool, type(None)})
_CUT = ", ..."


def arguments_repr(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    maxlevels: int | None = MAX_LEVELS,
    maxsize: int = MAX_SIZE,
) -> tuple[str, str]:
    """Return the headers `argsrepr` and `kwargsrepr`: `(1, 2)` and `{'x': 3}`.

    About `maxsize` characters each; containers deeper than `maxlevels` (None: no limit) show as `[...]`.
    """
    return safe_repr(args, maxlevels, maxsize), safe_repr(kwargs, maxlevels, maxsize) if kwargs else "{}"


def safe_repr(value: Any, maxlevels: int | None = MAX_LEVELS, maxsize: int = MAX_SIZE) -> str:
    """Return a repr of at most about `maxsize` characters, whatever the value is or its classes do."""
    kind = type(value)
    if (kind is tuple or kind is list) and len(value) <= _QUICK_ITEMS:
        items = value
    elif kind is dict and len(value) <= _QUICK_ITEMS:
        items = (*value, *value.values())
    else:
        return _careful(value, maxlevels, maxsize)
    for item in items:
        kind = type(item)
        if kind is str:
            if len(item) > _QUICK_TEXT:
                break
        elif kind not in _QUICK_TYPES:
            break
    else:
        try:
            text = repr(value)
        except ValueError:  # an int with more digits than Python writes
            pass
        else:
            if len(text) <= maxsize:
                return text
    return _careful(value, maxlevels, maxsize)


def _careful(value: Any, maxlevels: int | None, maxsize: int) -> str:
    writer = _Writer(maxlevels, maxsize)
    try:
        writer.value(value, 0)
    except Exception as error:  # noqa: BLE001 - a total function
        writer.parts.append(f"<unprintable: {type(error).__name__}>")
    return "".join(writer.parts)


class _Writer:
    """Collects the pieces of one text until its room is used up, then only closes what is open."""

    __slots__ = ("levels", "parts", "room", "seen")

    def __init__(self, maxlevels: int | None, maxsize: int) -> None:
        self.parts: list[str] = []
        self.room = maxsize
        # Without a limit of the caller's, Python's own recursion limit must still not be met.
        self.levels = maxlevels or 100
        self.seen: set[int] = set()

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.room -= len(text)

    def value(self, value: Any, level: int) -> None:
        if isinstance(value, dict):
            self.container(value, level, "{", "}")
        elif isinstance(value, list):
            self.container(value, level, "[", "]")
        elif isinstance(value, tuple):
            self.container(value, level, "(", ",)" if len(value) == 1 else ")")
        elif isinstance(value, (set, frozenset)) and value:
            self.container(value, level, "{", "}")
        else:
            self.put(_scalar(value, max(self.room, 0)))

    def container(self, value: Any, level: int, start: str, end: str) -> None:
        if id(value) in self.seen or (level >= self.levels and value):
            self.put(f"{start}...{end[-1]}")
            return
        self.seen.add(id(value))
        self.put(start)
        separator = ""
        for item in value.items() if isinstance(value, dict) else value:
            if self.room <= 0:
                self.parts.append(_CUT)
                break
            self.put(separator)
            if isinstance(value, dict):
                self.put(_scalar(item[0], self.room))
                self.put(": ")
                item = item[1]
            self.value(item, level + 1)
            separator = ", "
        self.parts.append(end)
        self.seen.discard(id(value))


def _scalar(value: Any, room: int) -> str:
    """The repr of something that is not walked into, cut to `room` characters."""
    try:
        if isinstance(value, (str, bytes, bytearray)) and len(value) > room:
            return repr(value[:room])[:-1] + "..." + repr(value[:0])[-1]
        text = repr(value)
    except Exception:  # noqa: BLE001 - a total function
        return f"<unprintable {type(value).__name__} object>"
    return text if len(text) <= room else text[:room] + "..."
