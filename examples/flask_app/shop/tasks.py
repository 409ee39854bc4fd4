"""Tasks: they know Flask's current application and no particular one."""

from __future__ import annotations

from flask import current_app

from umbel import shared_task


@shared_task
def greet(name: str) -> str:
    """Greet as the application's configuration says."""
    return f"{current_app.config['GREETING']} {name}"
