"""Imports go down only, and the core stays pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.house.sources import ROOT, SOURCE

#: Where a module may be imported by a name that is computed, and why.
IMPORT_BY_NAME: dict[str, str] = {
    "src/umbel/__init__.py": "the public names load at first use",
    "src/umbel/core/optional.py": "packages of extras, by constant names",
    "src/umbel/engine/registry.py": "URL scheme → engine",
    "src/umbel/engines/redis/location.py": "a credential provider named by the user",
    "src/umbel/app/conf_sources.py": "settings modules named by the user",
    "src/umbel/app/find.py": "`-A` names the user's app",
    "src/umbel/app/loading.py": "task modules named by the user",
    "src/umbel/app/services.py": "`app.start` and `app.worker_main` open the command line",
    "src/umbel/cli/main.py": "a command's module loads when it is called",
}

#: Reading the clock by way of a value type.
CLOCK_READERS = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7"}


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nobody_inside_imports_the_front_door() -> None:
    inside = [source for source in SOURCE if source.name != "src/umbel/__init__.py"]
    imported = [f"{s.name}:{line}" for s in inside for name, line in s.imports() if name == "umbel"]
    assert imported == []


def test_only_listed_modules_import_by_computed_name() -> None:
    found = set()
    for source in SOURCE:
        for node in ast.walk(source.tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.rpartition(".")[2].strip("_") in {"import_module", "import"}:
                found.add(source.name)
    assert found - set(IMPORT_BY_NAME) == set()
    assert set(IMPORT_BY_NAME) - found == set(), "no longer needed"


def test_the_core_never_reads_the_clock_or_makes_an_id() -> None:
    found = []
    for source in SOURCE:
        if not source.module.startswith("umbel.core"):
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_READERS:
                found.append(f"{source.name}:{node.lineno} {ast.unparse(node.func)}")
    assert found == []


def test_the_map_of_the_rooms_names_every_module_of_the_large_ones() -> None:
    page = (ROOT / "docs" / "internals" / "rooms.md").read_text(encoding="utf-8")
    named = {f"umbel.{room}.{name}" for room, names in _mapped(page) for name in names}
    there = {s.module for s in SOURCE if s.path.name != "__init__.py" and s.module.split(".")[1:-1] in MAPPED}
    assert there - named == set(), "say in docs/internals/rooms.md what they are about"
    assert named - there == {"umbel.app.canvas"}, "no longer there"


#: Rooms with so many modules that a map helps.
MAPPED = (["engine"], ["app"], ["worker"])


def _mapped(page: str) -> list[tuple[str, list[str]]]:
    """Return each mapped room with the modules that its table is about."""
    rooms = [part.partition("`") for part in page.split("\n### `")[1:]]
    rows = {room: re.findall(r"^\| `([^`]+)`", text, re.MULTILINE) for room, _, text in rooms}
    return [(room, re.findall(r"\w+", ",".join(names))) for room, names in rows.items()]
