"""`umbel queues`: how many messages each queue holds."""

from __future__ import annotations

import time

import click

from umbel.cli.parts import COMMA_LIST, Command, Option
from umbel.cli.state import State, pass_state, printable
from umbel.core.message import Depth

__all__ = ["queues"]


@click.command(cls=Command)
@click.option("-Q", "--queues", "names", cls=Option, type=COMMA_LIST, metavar="A,B", help="These queues only.")
@click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print JSON.")
@pass_state
def queues(state: State, /, *, names: list[str] | None, as_json: bool) -> None:
    """Show how many messages are ready, not yet due, and held by workers, for every queue the broker knows.

    A broker that only counts what is ready and cannot list its queues (RabbitMQ) is asked for the configured ones.
    """
    app = state.app
    caps = app.engine.caps
    if not names and not caps.counts:
        names = sorted(app.amqp.queues)
    found = app.broker.depth(names or [], time.time())
    rows = {name: _row(depth, counts=caps.counts) for name, depth in sorted(found.items())}
    if as_json:
        state.print_json(rows)
        return
    if not state.quiet:
        state.echo(f"{'ready':>10} {'scheduled':>10} {'leased':>10}  queue")
    for name, row in rows.items():
        ready, scheduled, leased = ("-" if count is None else count for count in row.values())
        state.echo(f"{ready:>10} {scheduled:>10} {leased:>10}  {printable(name)}")


def _row(depth: Depth, *, counts: bool) -> dict[str, int | None]:
    return {
        "ready": depth.ready,
        "scheduled": depth.scheduled if counts else None,
        "leased": depth.leased if counts else None,
    }
