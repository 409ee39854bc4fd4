"""A project folder for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.kit import PROJECT, Project


@pytest.fixture
def project(tmp_path: Path, wait_until: Callable[..., None]) -> Project:
    made = Project(tmp_path, wait_until)
    made.write("proj.py", PROJECT.replace("{folder}", str(tmp_path)))
    return made
