"""What a Celery worker does when a member of a chord has ended, without the worker. Runs in Celery's environment."""

from __future__ import annotations

from celery import signature
from celery.app.task import Context

#: The app that plays the worker.
apps = {}


def _backend(ordered):
    from celery_side import app, make

    if not ordered and "unordered" not in apps:
        apps["unordered"] = make(result_backend_transport_options={"result_chord_ordered": False})
    return (app if ordered else apps["unordered"]).backend


def chord_size(group, size):
    """Tell how many members there are, as a producer does before it sends the last one."""
    _backend(True).set_chord_size(group, size)


def chord_part(group, index, task_id, value, state="SUCCESS", ordered=True):
    """Let a member end; whoever is last sends the body to the queue `bodies`."""
    body = signature("fleet.echo", kwargs={"group": group}, options={"queue": "bodies", "task_id": f"body-{group}"})
    request = Context(id=task_id, group=group, group_index=index, chord=dict(body))
    _backend(ordered).on_chord_part_return(request, state, value)


def chord_parts(parts):
    """Let several members end."""
    for part in parts:
        chord_part(*part)


names = {"chord_size": chord_size, "chord_part": chord_part, "chord_parts": chord_parts}
