"""What stands around the code agrees with it: changelog, commands, licence, version."""

from __future__ import annotations

import re
import subprocess
import tomllib

from tests.house.sources import ROOT

COMMANDS = ("help", "setup", "demo", "test", "lint", "types", "bench", "check")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_changelog_has_a_place_for_what_is_not_yet_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def test_make_help_lists_every_command() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE)
    assert set(COMMANDS) <= set(listed)


def test_every_file_of_the_project_that_packaging_names_is_there() -> None:
    assert (ROOT / PROJECT["readme"]).is_file()
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_ci_runs_the_test_command_that_the_readme_names() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("exec make test")


def test_the_core_dependencies_are_the_agreed_three() -> None:
    names = {re.split(r"[<>=;\s]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {"msgspec", "click", "tzdata"}
