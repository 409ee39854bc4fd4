"""`umbel queues`: how many messages each queue holds."""

from __future__ import annotations

import time

import click

from umbel.cli.parts import COMMA_LIST, Command, Option
from umbel.cli.state import State, pass_state, printable

__all__ = ["queues"]


@click.command(cls=Command)
@click.option("-Q", "--queues", "names", cls=Option, type=COMMA_LIST, metavar="A,B", help="These queues only.")
@click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print JSON.")
@pass_state
def queues(state: State, /, *, names: list[str] | None, as_json: bool) -> None:
    """Show how many messages are ready, not yet due, and held by workers, for every queue the broker knows."""
    found = state.app.broker.depth(names or [], time.time())
    if as_json:
        state.print_json(
            {
                name: {"ready": depth.ready, "scheduled": depth.scheduled, "leased": depth.leased}
                for name, depth in sorted(found.items())
            }
        )
        return
    if not state.quiet:
        state.echo(f"{'ready':>10} {'scheduled':>10} {'leased':>10}  queue")
    for name, depth in sorted(found.items()):
        state.echo(f"{depth.ready:>10} {depth.scheduled:>10} {depth.leased:>10}  {printable(name)}")
