"""What one row of the settings table holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Kind", "Setting", "Support"]


class Kind(Enum):
    """Which values a setting takes; the value of the member is the word for it in errors and in the
    reference.
    """

    ANY = "anything"
    BOOL = "true or false"
    BYTES = "bytes"
    CONCURRENCY = 'a whole number or "auto"'
    DELIVERY_MODE = '"persistent" (2) or "transient" (1)'
    FLOAT = "a number"
    INT = "a whole number"
    MAPPING = "a dict"
    NAMES = "a list of names"
    QUEUE = "a queue name or a Queue"
    QUEUES = "a list of Queue objects, or a dict of queue names with their options"
    RATE = 'a number of tasks a second, or text such as "10/s", "100/m", "2/h"'
    SECONDS = "a number of seconds or a timedelta"
    TEXT = "text"
    TIMEZONE = "the name of a time zone or a tzinfo"
    URL = "a URL"


class Support(Enum):
    """What umbel does with a setting."""

    WORKS = "works"
    NO_EFFECT = "no effect"
    UNSUPPORTED = "not supported yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its name, old names, type, default, what it means and how far umbel supports it.

    `note` is the reason why a setting of support NO_EFFECT changes nothing, or what to do instead of one
    that is
    UNSUPPORTED. `optional` allows None also where the default is something else. `since` names the version of
    Celery ("Celery 5.7") or umbel ("umbel 0.1") that brought the setting; empty where it has always been there.
    """

    name: str
    kind: Kind
    default: object
    text: str
    old: tuple[str, ...] = ()
    since: str = ""
    support: Support = Support.WORKS
    note: str = ""
    optional: bool = False
    choices: tuple[object, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def takes_none(self) -> bool:
        """Tell whether None is a value of this setting."""
        return self.optional or self.default is None
