"""Every setting of umbel in one table, with the rules for its values. Pure: nothing is read from outside."""

from __future__ import annotations

from umbel.core.settings.checks import check_together
from umbel.core.settings.convert import convert
from umbel.core.settings.setting import Kind, Setting, Support
from umbel.core.settings.table import BY_NAME, BY_OLD_NAME, SECTIONS, nearest, unknown

__all__ = [
    "BY_NAME",
    "BY_OLD_NAME",
    "SECTIONS",
    "Kind",
    "Setting",
    "Support",
    "check_together",
    "convert",
    "nearest",
    "unknown",
]
