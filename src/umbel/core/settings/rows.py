"""Short ways to write the rows of the settings table."""

from __future__ import annotations

from typing import Any

from umbel.core.settings.setting import Kind, Setting, Support

__all__ = ["no_effect", "unsupported", "works"]


def works(name: str, old: str, kind: Kind, default: object, text: str, **more: Any) -> Setting:
    """Return the row of a setting that umbel obeys; `old` are its old names, separated by spaces."""
    return Setting(name=name, old=tuple(old.split()), kind=kind, default=default, text=text, **more)


def no_effect(name: str, old: str, kind: Kind, default: object, text: str, *, why: str, **more: Any) -> Setting:
    """Return the row of a setting that may be given and changes nothing, for the reason `why`."""
    return works(name, old, kind, default, text, support=Support.NO_EFFECT, note=why, **more)


def unsupported(name: str, old: str, kind: Kind, default: object, text: str, *, do: str, **more: Any) -> Setting:
    """Return the row of a setting that cannot be changed yet; `do` says what to do instead."""
    return works(name, old, kind, default, text, support=Support.UNSUPPORTED, note=do, **more)
