"""A setting that claims to work is read by the program; one that is not there yet says what to do."""

from __future__ import annotations

import ast

from tests.house.sources import ROOT, SOURCE
from umbel.core.settings import BY_NAME, Support

TABLE = "src/umbel/core/settings/"

#: Settings that are read by a name put together at run time: name → where.
READ_INDIRECTLY: dict[str, str] = {}


def names_used_outside_the_table() -> set[str]:
    used: set[str] = set()
    for source in SOURCE:
        if source.name.startswith(TABLE):
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    return used


def test_every_setting_that_works_is_read_somewhere() -> None:
    used = names_used_outside_the_table() | set(READ_INDIRECTLY)
    idle = [row.name for row in BY_NAME.values() if row.support is Support.WORKS and row.name not in used]
    assert idle == []


def test_every_setting_that_does_not_work_yet_says_what_to_do_instead() -> None:
    silent = [row.name for row in BY_NAME.values() if row.support is not Support.WORKS and not row.note.strip()]
    assert silent == []


def test_every_setting_has_a_text_that_is_a_sentence() -> None:
    assert [row.name for row in BY_NAME.values() if not row.text.endswith((".", "`.", ")"))] == []


def test_every_setting_stands_in_the_reference() -> None:
    reference = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("settings.md"))
    assert [row.name for row in BY_NAME.values() if row.name not in reference] == []
