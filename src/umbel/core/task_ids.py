"""What a task id tells by itself."""

from __future__ import annotations

__all__ = ["is_drawn"]


def is_drawn(task_id: str) -> bool:
    """Tell whether an id was drawn or derived (a UUID of version 4, 5 or 7): nobody uses it again on purpose."""
    return len(task_id) == 36 and task_id[14] in "457" and task_id[8] == task_id[13] == "-"
