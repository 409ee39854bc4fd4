"""The one table of settings: every name, old name, type, default and text, and how a name is found in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from umbel.core.settings import beat, broker, general, result, stores, task, worker
from umbel.core.settings.setting import Setting

__all__ = ["BY_NAME", "BY_OLD_NAME", "SECTIONS", "nearest", "unknown"]

SECTIONS: tuple[tuple[str, tuple[Setting, ...]], ...] = (
    ("Content, time and imports", general.ROWS),
    ("Tasks", task.ROWS),
    ("Broker, control and events", broker.ROWS),
    ("Results", result.ROWS),
    ("Worker", worker.ROWS),
    ("Scheduler and event monitor", beat.ROWS),
    ("Other stores and security", stores.ROWS),
)

BY_NAME: Mapping[str, Setting] = MappingProxyType({row.name: row for _, rows in SECTIONS for row in rows})
BY_OLD_NAME: Mapping[str, Setting] = MappingProxyType({old: row for row in BY_NAME.values() for old in row.old})


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that looks most like `name`, or None where none is near."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(name: str, namespace: str | None = None) -> str:
    """Return the text of the error about a setting called `name` that does not exist.

    `namespace` is the prefix that the configuration was read with, if any: suggestions are written with it.
    """
    old = BY_OLD_NAME.get(name)
    prefix = f"{namespace}_" if namespace else ""
    if prefix and old is not None:
        return f"{name} is an old name, which cannot be used with a namespace: write {_prefixed(old.name, prefix)}"
    if prefix and name.startswith(prefix):
        found = nearest(name[len(prefix) :].lower(), BY_NAME)
        suggestion = _prefixed(found, prefix) if found else None
    elif name.lower() in BY_NAME:
        suggestion = name.lower()
    else:
        suggestion = nearest(name, BY_OLD_NAME if name.isupper() else BY_NAME) or nearest(name.lower(), BY_NAME)
    remedy = f"did you mean {suggestion}?" if suggestion else "see docs/reference/settings.md for those that exist"
    return f"there is no setting {name}: {remedy}"


def _prefixed(name: str, prefix: str) -> str:
    return prefix + (name.upper() if prefix.isupper() else name)
