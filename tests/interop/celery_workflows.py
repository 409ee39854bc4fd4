"""Sends workflows and tells how they ended, as Celery's client sees it. Runs in Celery's environment."""

from __future__ import annotations

from celery import chain, chord, group
from celery.result import GroupResult, result_from_tuple
from workflows import described, words


def send(text, sides, tag):
    """Send the workflow of an expression; return its results as a tuple."""
    from celery_side import app

    return eval(text, words(app, (chain, group, chord), sides, tag)).apply_async().as_tuple()


def tell(results):
    """Tell how a workflow stands."""
    from celery_side import app

    return described(result_from_tuple(results, app))


def read(results, seconds=20):
    """Read a workflow as programs do: its value, what came before it, all that it collects, and its graph."""
    from celery_side import app

    result = result_from_tuple(results, app)
    value, before, above = result.get(timeout=seconds), [], result.parent
    while above is not None:
        before.append(above.get(timeout=seconds))
        above = above.parent
    top = result
    while top.parent is not None:
        top = top.parent
    if hasattr(top, "results"):
        return {"value": value, "before": before, "collected": [], "graph": 0}
    collected = [one for _, one in top.collect(timeout=seconds)]
    return {"value": value, "before": before, "collected": collected, "graph": len(list(top.graph))}


def save(results):
    """Keep a group."""
    from celery_side import app

    return result_from_tuple(results, app).save() is not False


def restore(group_id, seconds=20):
    """Find a group that was kept, and return its values; None where there is none."""
    from celery_side import app

    found = GroupResult.restore(group_id, app=app)
    return None if found is None else found.get(timeout=seconds)


names = {
    "send_workflow": send,
    "tell_workflow": tell,
    "read_workflow": read,
    "save_group": save,
    "restore_group": restore,
}
