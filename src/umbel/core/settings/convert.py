"""Turn what a program, a file or the command line says into the value of a setting, or say what is wrong
with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta, tzinfo
from typing import Any

from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.queues import Queue
from umbel.core.settings.setting import Kind, Setting, Support

__all__ = ["convert", "is_secret", "to_bool"]

_SECRET = re.compile(r"API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)
_BOOLEANS = {
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "false": False,
    "no": False,
    "0": False,
    "off": False,
}
_RATE = re.compile(r"\d+(\.\d+)?(/[smh])?")


class _WrongType(Exception):
    """The value is of no type that the setting takes."""


def is_secret(name: str) -> bool:
    """Tell whether the value of a setting or option called `name` may be a secret (Celery: same words)."""
    return bool(_SECRET.search(name)) and not name.lower().endswith(("routing_key", "keyprefix"))


def to_bool(text: str) -> bool:
    """Return the truth of true/yes/1/on or false/no/0/off in any case; ValueError for any other text."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is none of true, yes, 1, on, false, no, 0, off") from None


def convert(setting: Setting, value: object, *, from_text: bool = False) -> Any:
    """Return `value` as the setting keeps it; raise `ImproperlyConfigured` for a wrong type or value.

    With `from_text` a string is read as the environment and the command line write values: booleans as words,
    numbers as digits, lists with commas, dicts as JSON. A setting that is not supported yet takes its
    default only.
    """
    if value is None:
        if setting.takes_none:
            return _unset(setting)
        raise ImproperlyConfigured(f"{setting.name} must be {setting.kind.value}, not None")
    try:
        result = _CONVERTERS[setting.kind](_from_text(setting.kind, value) if from_text else value)
    except (_WrongType, ValueError) as error:
        raise ImproperlyConfigured(_wrong(setting, value, str(error))) from None
    _check(setting, result)
    return result


def _unset(setting: Setting) -> Any:
    if setting.support is Support.UNSUPPORTED and setting.default is not None:
        raise _not_supported(setting)
    return None


def _check(setting: Setting, value: Any) -> None:
    if setting.support is Support.UNSUPPORTED and not _is_default(setting, value):
        raise _not_supported(setting)
    if setting.choices and value not in setting.choices:
        choices = ", ".join(repr(choice) for choice in setting.choices)
        raise ImproperlyConfigured(f"{setting.name} must be one of {choices}, not {_shown(setting, value)}")
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if setting.minimum is not None and value < setting.minimum:
            raise ImproperlyConfigured(f"{setting.name} must be at least {setting.minimum:g}, not {value:g}")
        if setting.maximum is not None and value > setting.maximum:
            raise ImproperlyConfigured(f"{setting.name} must be at most {setting.maximum:g}, not {value:g}")


def _is_default(setting: Setting, value: Any) -> bool:
    return bool(value == setting.default) or (setting.default is None and value in ({}, (), ""))


def _not_supported(setting: Setting) -> NotSupportedError:
    return NotSupportedError(f"{setting.name} is not supported yet: {setting.note}")


def _wrong(setting: Setting, value: object, detail: str) -> str:
    more = f" ({detail})" if detail else ""
    hint = ""
    if isinstance(value, str) and setting.kind is not Kind.NAMES:
        hint = "; text is understood from the environment and the command line only"
        if detail or setting.kind in _TEXTUAL:
            hint = ""
    return f"{setting.name} must be {setting.kind.value}, not {_shown(setting, value)}{more}{hint}"


def _shown(setting: Setting, value: object) -> str:
    kind = type(value).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    if is_secret(setting.name) or setting.kind is Kind.URL:
        return f"{article} {kind}"
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({article} {kind})"


def _from_text(kind: Kind, value: object) -> object:
    reader = _READERS.get(kind)
    return reader(value) if reader is not None and isinstance(value, str) else value


def _read_int(text: str) -> object:
    return int(text)


def _read_float(text: str) -> object:
    return float(text)


def _read_names(text: str) -> object:
    return [name.strip() for name in text.split(",") if name.strip()]


def _read_mapping(text: str) -> object:
    return json.loads(text)


def _read_number_or_text(text: str) -> object:
    return int(text) if text.isdigit() else text


def _read_any(text: str) -> object:
    return json.loads(text) if text[:1] in ("{", "[") else text


_READERS: Mapping[Kind, Callable[[str], object]] = {
    Kind.BOOL: to_bool,
    Kind.INT: _read_int,
    Kind.FLOAT: _read_float,
    Kind.SECONDS: _read_float,
    Kind.NAMES: _read_names,
    Kind.MAPPING: _read_mapping,
    Kind.CONCURRENCY: _read_number_or_text,
    Kind.DELIVERY_MODE: _read_number_or_text,
    Kind.QUEUES: _read_any,
    Kind.ANY: _read_any,
    Kind.BYTES: lambda text: text.encode(),
}


def _any(value: object) -> object:
    return value


def _bool(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise _WrongType


def _int(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _WrongType


def _float(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value:  # noqa: PLR0124 - only NaN differs from itself
            raise ValueError("it is not a number")
        return float(value)
    raise _WrongType


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else _float(value)


def _text(value: object) -> object:
    if isinstance(value, str):
        return value
    raise _WrongType


def _path_or_text(value: object) -> object:
    if hasattr(value, "__fspath__"):
        return str(value)
    return _text(value)


def _bytes(value: object) -> object:
    if isinstance(value, (bytes, str)):
        return value
    raise _WrongType


def _names(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        names = tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f"{name!r} in it is not text")
        return names
    raise _WrongType


def _mapping(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise _WrongType


def _url(value: object) -> object:
    """Keep one URL, or several as one text, joined by `;` (Celery takes a list too)."""
    if isinstance(value, (list, tuple)):
        if not value or not all(isinstance(url, str) for url in value):
            raise _WrongType
        value = ";".join(url.strip().strip(";") for url in value)
    if not isinstance(value, str):
        raise _WrongType
    return value.strip().rstrip(";")


def _timezone(value: object) -> object:
    if isinstance(value, (str, tzinfo)):
        return value
    raise _WrongType


def _rate(value: object) -> object:
    if isinstance(value, str):
        if not _RATE.fullmatch(value):
            raise ValueError("the units are s, m and h")
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) else _float(value)


def _delivery_mode(value: object) -> object:
    if isinstance(value, (int, str)) and not isinstance(value, bool) and value in _DELIVERY_MODES:
        return _DELIVERY_MODES[value]
    raise _WrongType


def _concurrency(value: object) -> object:
    return value if value == "auto" else _int(value)


def _queue(value: object) -> object:
    if isinstance(value, Queue) or (isinstance(value, str) and value):
        return value
    raise _WrongType


def _queues(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _WrongType
    for queue in value:
        if not isinstance(queue, Queue):
            right = f"write Queue({queue!r})" if isinstance(queue, str) else "import Queue and Exchange from umbel"
            raise ValueError(f"{queue!r} in it is not a Queue of umbel: {right}")
    return tuple(value)


_DELIVERY_MODES: Mapping[int | str, int] = {1: 1, 2: 2, "transient": 1, "persistent": 2}
_TEXTUAL = frozenset({Kind.URL, Kind.RATE, Kind.QUEUE, Kind.TIMEZONE, Kind.DELIVERY_MODE})
_CONVERTERS: Mapping[Kind, Callable[[object], object]] = {
    Kind.ANY: _any,
    Kind.BOOL: _bool,
    Kind.BYTES: _bytes,
    Kind.CONCURRENCY: _concurrency,
    Kind.DELIVERY_MODE: _delivery_mode,
    Kind.FLOAT: _float,
    Kind.INT: _int,
    Kind.MAPPING: _mapping,
    Kind.NAMES: _names,
    Kind.QUEUE: _queue,
    Kind.QUEUES: _queues,
    Kind.RATE: _rate,
    Kind.SECONDS: _seconds,
    Kind.TEXT: _path_or_text,
    Kind.TIMEZONE: _timezone,
    Kind.URL: _url,
}
