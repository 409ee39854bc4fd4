"""The public names: exactly these, each with something to say for itself."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import umbel
from tests.house.sources import ROOT

#: A name comes or goes only together with this list.
PUBLIC = {
    *("Umbel", "Celery", "Task", "shared_task", "current_app", "current_task", "app_or_default", "bugreport"),
    *("AsyncResult", "Signature", "signature", "maybe_signature", "subtask", "uuid", "Queue", "Exchange"),
    *("chain", "group", "chord", "chunks", "xmap", "xstarmap", "__version__"),
}


def test_the_public_names_are_exactly_those_agreed_on() -> None:
    assert set(umbel.__all__) == PUBLIC
    assert len(umbel.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    value = getattr(umbel, name)
    assert isinstance(value, str) or inspect.getdoc(value)


def test_every_public_method_is_documented() -> None:
    classes = [value for name in PUBLIC if inspect.isclass(value := getattr(umbel, name))]
    silent = [
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, value in inspect.getmembers(cls)
        if not name.startswith("_") and callable(value) and not inspect.getdoc(value)
    ]
    assert silent == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Umbell"):
        umbel.Umbell


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "src/umbel/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    imported = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert PUBLIC - imported - {"__version__", "bugreport"} == set()


def test_importing_umbel_loads_next_to_nothing() -> None:
    code = "import sys, umbel; print(sorted(name for name in sys.modules if name.startswith('umbel.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
