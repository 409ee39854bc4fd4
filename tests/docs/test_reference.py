"""The pages that are written from the code are those that the code would write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.mark.parametrize("script", ["gen_api_reference.py", "gen_settings_reference.py", "gen_cli_reference.py"])
def test_generated_pages_are_up_to_date(script) -> None:
    checked = subprocess.run(
        [sys.executable, f"scripts/{script}", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
