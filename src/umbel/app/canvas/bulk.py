"""Build the messages of many calls."""

from __future__ import annotations

from typing import Any

from umbel.app.canvas.publishing import resolve
from umbel.app.publish_signals import announced, somebody_listens
from umbel.core.flow.starting import Call
from umbel.core.message import Message

__all__ = ["build_many"]


def build_many(app: Any, calls: list[Call]) -> list[tuple[Message, Any]]:
    """Return the message of each call, with what its publish signals are to be told; None where nobody listens."""
    listening = somebody_listens()
    client = app.client
    found: list[tuple[Message, Any]] = []
    for call in calls:
        task, options = resolve(app, call)
        plan, own = client.plan(task, call.args, call.kwargs, options)
        message, told = client.message(plan, call.args, call.kwargs, own), None
        if listening:
            message, told = announced(message, plan, (call.args, call.kwargs, own))
        found.append((message, told))
    return found
