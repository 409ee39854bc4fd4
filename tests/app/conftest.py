"""An app of its own for each test, on a SQLite file in the test's folder, and a worker for it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.execution_kit import MiniWorker
from umbel import Umbel
from umbel.app import current


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Umbel]:
    before = current.apps.default
    with Umbel("proj", broker=f"sqlite:///{tmp_path}/tasks.db") as made:
        yield made
    current.set_default(before)
    current.apps.local.app = None


@pytest.fixture
def worker(app: Any) -> MiniWorker:
    return MiniWorker(app)
