"""mypy sees in the public names what their users should see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_mypy_refuses_the_marked_lines_and_no_others() -> None:
    source = HERE / "check_public.py"
    lines = source.read_text(encoding="utf-8").splitlines()
    marked = {
        (number, found[1])
        for number, line in enumerate(lines, 1)
        if (found := re.search(r"# expect-error: (\S+)$", line))
    }
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--show-error-codes", str(source)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        (int(line), code)
        for line, code in re.findall(r"check_public\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    }
    assert marked
    assert found == marked, done.stdout
