"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast

from tests.house.sources import SOURCE, Function, Source

FILE_LINES = 400
FUNCTION_LINES = 60

#: Longer files: name → (most lines, why it is not two files).
LONGER_FILES: dict[str, tuple[int, str]] = {}

#: Longer functions: "file:name" → (most lines, why it is not two functions).
LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {}


def code_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return total - ((first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0)


def file_lines(source: Source) -> int:
    return source.text.count("\n")


def functions() -> dict[str, int]:
    return {f"{s.name}:{name}": code_lines(node) for s in SOURCE for name, node in s.functions()}


def test_no_file_is_longer_than_its_limit() -> None:
    sizes = {source.name: file_lines(source) for source in SOURCE}
    limits = {name: LONGER_FILES.get(name, (FILE_LINES, ""))[0] for name in sizes}
    assert {name: size for name, size in sizes.items() if size > limits[name]} == {}


def test_no_function_is_longer_than_its_limit() -> None:
    sizes = functions()
    limits = {name: LONGER_FUNCTIONS.get(name, (FUNCTION_LINES, ""))[0] for name in sizes}
    assert {name: size for name, size in sizes.items() if size > limits[name]} == {}


def test_every_listed_exception_is_still_needed_and_has_a_reason() -> None:
    files = {source.name: file_lines(source) for source in SOURCE}
    stale = [name for name in LONGER_FILES if files.get(name, 0) <= FILE_LINES]
    stale += [name for name in LONGER_FUNCTIONS if functions().get(name, 0) <= FUNCTION_LINES]
    assert stale == []
    assert all(reason for _, reason in [*LONGER_FILES.values(), *LONGER_FUNCTIONS.values()])
