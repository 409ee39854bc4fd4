"""`umbel purge`: delete the messages that wait in queues."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from umbel.app.canvas.publishing import keeps_plans
from umbel.app.purging import purge as purge_queues
from umbel.app.purging import purged_queues
from umbel.cli.parts import COMMA_LIST, Command, Option
from umbel.cli.state import State, pass_state
from umbel.core.urls import mask_url

if TYPE_CHECKING:
    from umbel.app.app import Umbel

__all__ = ["purge"]


@click.command(cls=Command)
@click.option("-f", "--force", cls=Option, is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", cls=Option, type=COMMA_LIST, metavar="A,B", help="Of these queues only.")
@click.option("-X", "--exclude-queues", cls=Option, type=COMMA_LIST, metavar="A,B", help="Of all queues but these.")
@pass_state
def purge(state: State, /, *, force: bool, queues: list[str] | None, exclude_queues: list[str] | None) -> None:
    """Delete the messages that wait, also those that are not due; what workers hold is left alone.

    Steps of chains and members of chords count as revoked. Without -Q it is about all queues that the app knows.
    Without -A their results are taken to be where those of the broker would be: `umbel --result-backend URL purge`.
    """
    app = state.app
    if not state.names_an_app:
        state.echo(_who_is_told(app), err=True)
    names = sorted(set(queues or purged_queues(app)) - set(exclude_queues or ()))
    if not names:
        raise click.UsageError("no queue is left: -X excludes all of them")
    counts = app.broker.depth(names, time.time())
    waiting = {name: counts[name].ready + counts[name].scheduled if name in counts else 0 for name in names}
    if not force:
        state.echo("This deletes for good, and there is no way back:")
        for name, count in waiting.items():
            state.echo(f"  {count:>8}  {name}")
        click.confirm("Delete?", abort=True)
    count = purge_queues(app, names)
    state.echo(f"Deleted {count} message{'' if count == 1 else 's'} from {', '.join(names)}.")
    if not app.engine.caps.counts:
        state.echo("RabbitMQ does not give out what waits for its time (countdown, retries): that stays.", err=True)


def _who_is_told(app: Umbel) -> str:
    """Say what becomes of workflows where nobody has said which app it is, and so where its results are."""
    if keeps_plans(app):
        where = mask_url(app.conf.result_backend or app.conf.broker_url)
        return f"Without -A: chords and chains are told by way of {where}; --result-backend URL names another store."
    return (
        "Without -A no store of results is known, so chords and chains that wait for these messages are NOT told and "
        "may wait for ever: name the app with -A, or the store with --result-backend URL, before `purge`."
    )
