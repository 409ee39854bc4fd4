"""A lab for each test, with its own folder and seed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give a lab; LAB_SEED in the environment repeats a run."""
    seed = int(os.environ.get("LAB_SEED", zlib.crc32(request.node.nodeid.encode()) ^ os.getpid()))
    lab = Lab(tmp_path, seed)
    os.environ["LAB_JOURNAL"] = str(lab.journal.path)
    try:
        yield lab
    finally:
        lab.close()
