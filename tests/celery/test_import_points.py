"""Celery's import points: the table, the modules, and what is not there yet."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.gen_import_points import names_of
from umbel.celery.import_points import POINTS
from umbel.core.errors import ImproperlyConfigured, NotSupportedError, NotThereYet

ROOT = Path(__file__).resolve().parents[2]


def full_name(path: str) -> str:
    return ".".join(filter(None, ("umbel.celery", path)))


HERE = [
    pytest.param(path, module, ours, theirs, id=f"{full_name(path)}.{theirs}")
    for path, point in POINTS.items()
    for module, names in point.here.items()
    for ours, theirs in names_of(names)
]
LATER = [
    pytest.param(path, name, remedy, id=f"{full_name(path)}.{name}")
    for path, point in POINTS.items()
    for names, remedy in point.later.items()
    for name in names.split()
]


@pytest.mark.parametrize(("path", "module", "ours", "theirs"), HERE)
def test_a_name_that_is_there_is_umbels_own_object(path, module, ours, theirs) -> None:
    point = importlib.import_module(full_name(path))
    assert vars(point)[theirs] is getattr(importlib.import_module(module), ours)
    assert theirs in point.__all__


@pytest.mark.parametrize(("path", "name", "remedy"), LATER)
def test_a_name_that_is_not_there_yet_says_so_on_import(path, name, remedy) -> None:
    with pytest.raises(ImportError, match="umbel has no celery") as raised:
        exec(f"from {full_name(path)} import {name}", {})
    text = str(raised.value)
    assert f".{name} yet: " in text
    assert text.endswith(remedy)


@pytest.mark.parametrize("path", [path for path, point in POINTS.items() if point.rest])
def test_a_module_without_anything_says_so_whatever_is_imported_from_it(path) -> None:
    with pytest.raises(ImportError, match="yet: "):
        exec(f"from {full_name(path)} import anything_at_all", {})


def test_an_unknown_name_is_pythons_own_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'no_such_thing'"):
        exec("from umbel.celery.result import no_such_thing", {})
    with pytest.raises(AttributeError):
        importlib.import_module("umbel.celery.backends").__wrapped__


def test_the_error_belongs_to_the_tree_of_errors() -> None:
    assert issubclass(NotThereYet, ImportError)
    assert issubclass(NotThereYet, NotSupportedError)
    assert issubclass(NotThereYet, ImproperlyConfigured)


def test_the_modules_are_those_of_the_table() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/gen_import_points.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, f"run scripts/gen_import_points.py\n{checked.stdout}{checked.stderr}"


def test_no_name_is_both_here_and_missing() -> None:
    for path, point in POINTS.items():
        here = {theirs for names in point.here.values() for _, theirs in names_of(names)}
        later = [name for names in point.later for name in names.split()]
        assert not here & set(later), path
        assert len(later) == len(set(later)), path


def test_nobody_inside_imports_the_import_points() -> None:
    own = ROOT / "src" / "umbel" / "celery"
    others = [file for file in (ROOT / "src" / "umbel").rglob("*.py") if not file.is_relative_to(own)]
    assert len(others) > 50
    assert [file for file in others if "umbel.celery" in _imports(file.read_text())] == []


def _imports(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.lstrip().startswith(("import ", "from ")))
