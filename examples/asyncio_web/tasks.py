"""The app and its task: `umbel -A tasks worker -l INFO`."""

from __future__ import annotations

from umbel import Umbel

app = Umbel("tasks", broker="sqlite:///sums.db")


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
