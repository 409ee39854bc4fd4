"""`umbel call`: send a task by its name and print its id."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from umbel.cli.parts import ISO_TIME, ISO_TIME_OR_SECONDS, JSON_ARRAY, JSON_OBJECT, Command, Option
from umbel.cli.state import State, pass_state, printable

__all__ = ["call"]


@click.command(cls=Command)
@click.argument("name")
@click.option("-a", "--args", "arguments", cls=Option, type=JSON_ARRAY, default="[]", metavar="JSON",
              help="Positional arguments, a JSON array.")  # fmt: skip
@click.option("-k", "--kwargs", "keywords", cls=Option, type=JSON_OBJECT, default="{}", metavar="JSON",
              help="Keyword arguments, a JSON object.")  # fmt: skip
@click.option("--eta", cls=Option, type=ISO_TIME, metavar="TIME", help="Not before this time (ISO 8601).")
@click.option("--countdown", cls=Option, type=float, metavar="S", help="Not before so many seconds from now.")
@click.option("--expires", cls=Option, type=ISO_TIME_OR_SECONDS, metavar="TIME|S",
              help="Not after this time, or so many seconds from now.")  # fmt: skip
@click.option("--serializer", cls=Option, default="json", show_default=True, help="How arguments are written.")
@click.option("--queue", cls=Option, help="Send to this queue.")
@click.option("--exchange", cls=Option, help="Send to this exchange.")
@click.option("--routing-key", cls=Option, help="Send with this routing key.")
@pass_state
def call(
    state: State,
    /,
    *,
    name: str,
    arguments: list[Any],
    keywords: dict[str, Any],
    eta: datetime | None,
    countdown: float | None,
    **options: Any,
) -> None:
    """Send the task NAME and print its id.

    With -A the options of a task that the app knows apply, and its arguments are checked.
    """
    from umbel.app.find import import_modules

    if eta is not None and countdown is not None:
        raise click.UsageError("--eta and --countdown say the same thing: give one of them")
    given = {key: value for key, value in options.items() if value is not None}
    app = state.app
    import_modules(app)
    if state.app_name:
        _check(state, name, arguments, keywords)
    if eta is not None:
        given["eta"] = eta
    if countdown is not None:
        given["countdown"] = countdown
    result = app.send_task(name, args=arguments, kwargs=keywords, **given)
    state.echo(result.id)


def _check(state: State, name: str, arguments: list[Any], keywords: dict[str, Any]) -> None:
    """Refuse arguments that do not fit a task of the app; a name that the app does not know is sent, and told."""
    from umbel.core.queues import nearest_name

    task = state.app.tasks.get(name)
    if task is None:
        near = nearest_name(name, state.app.tasks.own())
        hint = f"; did you mean {near!r}?" if near else ""
        state.error(printable(f"The app knows no task {name!r}, and sends it for a worker that does{hint}"))
    elif task._check is not None:
        try:
            task._check.check(arguments, keywords)
        except TypeError as error:
            raise click.UsageError(str(error)) from None
