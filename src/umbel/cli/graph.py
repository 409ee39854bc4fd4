"""`umbel graph`: draw the workflow that a task belongs to, as far as the stored results tell it."""

from __future__ import annotations

import click

from umbel.cli.failures import EX_FAILURE
from umbel.cli.parts import Command, Option
from umbel.cli.state import State, pass_state, printable

__all__ = ["graph"]


@click.command(cls=Command)
@click.argument("task_id")
@click.option("--dot", cls=Option, is_flag=True, help="Write Graphviz' language instead of a tree.")
@click.option("--below", cls=Option, is_flag=True, help="Begin at this task, not at the first one of its workflow.")
@pass_state
def graph(state: State, /, *, task_id: str, dot: bool, below: bool) -> int:
    """Draw who sent whom in the workflow of the task (or saved group) TASK_ID, each with its state.

    Steps that have not been sent yet are not in the picture. Exit status 1 where nothing is known of the id.
    """
    from umbel.app.result import GroupResult
    from umbel.app.result_graph import graph_from_root

    found = GroupResult.restore(task_id, app=state.app)
    if found is not None:
        drawn = found.graph
    else:
        task = state.app.AsyncResult(task_id)
        if not task.exists() and str(task.lifecycle) == "unknown":
            state.error(printable(f"nothing is known of the task {task_id}: its result may have expired"))
            return EX_FAILURE
        drawn = task.graph if below else graph_from_root(task)
    for line in drawn("dot" if dot else "text").splitlines():
        state.echo(printable(line))
    return 0
