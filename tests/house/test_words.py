"""The words of the house: plain module names, no notes to oneself, docstrings where readers look."""

from __future__ import annotations

import ast
import re

from tests.house.sources import EVERYTHING, SOURCE

THIS_FILE = "tests/house/test_words.py"
NOTES = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
EMPTY_ROOMS = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "base"}
#: Names that are Celery's own import points.
BORROWED_NAMES = ("src/umbel/celery/",)


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = [s.name for s in SOURCE if not s.name.startswith(BORROWED_NAMES)]
    assert [name for name in named if set(name.removesuffix(".py").split("/")) & EMPTY_ROOMS] == []


def test_nothing_is_left_for_later_in_the_code() -> None:
    places = [
        f"{source.name}:{number}"
        for source in EVERYTHING
        if source.name != THIS_FILE
        for number, line in enumerate(source.text.splitlines(), 1)
        if NOTES.search(line)
    ]
    assert places == []


def test_every_module_says_what_it_is_for() -> None:
    # The names of tests are sentences themselves.
    modules = [source for source in EVERYTHING if not source.path.name.startswith("test_")]
    assert [source.name for source in modules if source.text.strip() and not ast.get_docstring(source.tree)] == []


def test_every_raised_not_implemented_error_is_gone() -> None:
    raised = [
        f"{source.name}:{node.lineno}"
        for source in SOURCE
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc)
    ]
    assert raised == []
