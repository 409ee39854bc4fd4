"""Routes: one sends a task, one tells what came of it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, request

from shop.tasks import greet

blueprint = Blueprint("greetings", __name__)


@blueprint.post("/greetings")
def create() -> tuple[dict[str, Any], int]:
    """Send a greeting; answer with its id."""
    result = greet.delay(request.form["name"])
    return {"id": result.id}, 202


@blueprint.get("/greetings/<task_id>")
def show(task_id: str) -> dict[str, Any]:
    """Tell the state of a greeting, and the greeting once it is there."""
    result = current_app.extensions["umbel"].AsyncResult(task_id)
    return {"state": result.state, "value": result.result if result.successful() else None}
