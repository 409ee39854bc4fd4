"""Tests use the real thing and wait for facts."""

from __future__ import annotations

import ast

from tests.house.sources import TESTS

#: Tests that sleep although no outside process is involved: file → why waiting for a condition cannot do.
SLEEPERS: dict[str, str] = {"tests/conftest.py": "it is the wait for a condition"}

#: Real time passes between real processes there.
PROCESS_TESTS = "tests/process/"


def test_no_test_mocks_code_of_our_own() -> None:
    mocked = [f"{s.name}:{line}" for s in TESTS for name, line in s.imports() if name.startswith("unittest.mock")]
    assert mocked == []


def test_no_test_sleeps_outside_the_process_tests() -> None:
    found: dict[str, int] = {}
    for source in TESTS:
        for node in ast.walk(source.tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in {"time.sleep", "sleep"}:
                found[source.name] = node.lineno
    outside = {name: line for name, line in found.items() if not name.startswith(PROCESS_TESTS)}
    assert {name: line for name, line in outside.items() if name not in SLEEPERS} == {}
    assert set(SLEEPERS) - set(outside) == set(), "no longer needed"


def test_no_test_is_skipped_for_good() -> None:
    skipped = [
        f"{source.name}:{node.lineno}"
        for source in TESTS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"pytest.mark.skip", "unittest.skip"}
    ]
    assert skipped == []
