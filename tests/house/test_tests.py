"""Tests use the real thing and wait for facts."""

from __future__ import annotations

import ast
import re

from tests.groups import GROUPS
from tests.house.sources import TESTS

#: Real time passes between real processes there.
PROCESS_TESTS = ("tests/process/", "tests/interop/")


def test_no_test_mocks_code_of_our_own() -> None:
    mocked = [f"{s.name}:{line}" for s in TESTS for name, line in s.imports() if name.startswith("unittest.mock")]
    assert mocked == []


def sleeps(node: ast.AST, waiting: bool = False) -> list[int]:
    """Lines of the sleeps that are no pause of a loop which waits for a condition."""
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    found = [node.lineno] if isinstance(node, ast.Call) and called in {"time.sleep", "sleep"} and not waiting else []
    loop = isinstance(node, ast.While) and not isinstance(node.test, ast.Constant)
    for child in ast.iter_child_nodes(node):
        found += sleeps(child, waiting or loop)
    return found


def test_no_test_outside_the_process_tests_sleeps_and_hopes() -> None:
    found = {source.name: sleeps(source.tree) for source in TESTS if not source.name.startswith(PROCESS_TESTS)}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_groups_of_tests_name_files_that_are_there() -> None:
    parts = [(pattern.split("/")[1], re.findall(r"\w+(?=\\?\.py)", pattern)) for pattern, _ in GROUPS]
    named = {(folder, f"test_{name.removeprefix('test_')}") for folder, names in parts for name in names}
    assert named
    assert named - {(source.path.parent.name, source.path.stem) for source in TESTS} == set()


def test_no_test_is_skipped_for_good() -> None:
    skipped = [
        f"{source.name}:{node.lineno}"
        for source in TESTS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"pytest.mark.skip", "unittest.skip"}
    ]
    assert skipped == []
