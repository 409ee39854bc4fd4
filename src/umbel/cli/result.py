"""`umbel result`: print what a task gave, or where it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from umbel.cli.failures import EX_FAILURE
from umbel.cli.parts import Command, Option
from umbel.cli.state import State, pass_state, printable

__all__ = ["result"]


@click.command(cls=Command)
@click.argument("task_id")
@click.option("-t", "--task", cls=Option, metavar="NAME", help="Name of the task; the app must know it.")
@click.option("--traceback", cls=Option, is_flag=True, help="Print the traceback of a failed task.")
@click.option("--wait", cls=Option, type=click.FloatRange(0), metavar="S", help="Wait so long for the end of the task.")
@click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print one JSON object.")
@pass_state
def result(
    state: State, /, *, task_id: str, task: str | None, traceback: bool, wait: float | None, as_json: bool
) -> int:
    """Print the value that the task TASK_ID returned.

    Its state and where it is go to stderr. Exit status 0 for success, 1 for failure and for a task that is not done.
    """
    from umbel.core.errors import ImproperlyConfigured
    from umbel.core.errors import TimeoutError as NotReady

    if state.app.engine.replies is not None:
        raise ImproperlyConfigured(
            "results go as messages to the process that sent the task, and nobody else sees them (rpc://, RabbitMQ's "
            "way unless told otherwise): set result_backend to a redis:// or sqlite:// URL"
        )
    found: Any = _task_of(state, task).AsyncResult(task_id) if task else state.app.AsyncResult(task_id)
    if wait:
        with suppress(NotReady):
            found.get(timeout=wait, propagate=False)
    status = str(found.state)
    told = {"id": task_id, "state": status, "lifecycle": str(found.lifecycle)}
    if as_json:
        value = found.result if found.successful() else None
        error = repr(found.result) if found.failed() else None
        state.print_json({**told, "result": value, "error": error, "traceback": found.traceback if traceback else None})
        return 0 if found.successful() else EX_FAILURE
    if not state.quiet:
        state.echo(f"{told['state']} ({told['lifecycle']})", err=True)
    if found.successful():
        state.echo(printable(str(found.result)))
        return 0
    if found.ready():
        if traceback and found.traceback:
            state.echo(printable(found.traceback))
        else:
            state.error(printable(f"{type(found.result).__name__}: {found.result}"))
    return EX_FAILURE


def _task_of(state: State, name: str) -> Any:
    from umbel.app.find import import_modules
    from umbel.core.queues import nearest_name

    app = state.need_app("result")
    import_modules(app)
    if name not in app.tasks:
        near = nearest_name(name, list(app.tasks))
        raise click.UsageError(f"the app knows no task {name!r}{f'; did you mean {near!r}?' if near else ''}")
    return app.tasks[name]
