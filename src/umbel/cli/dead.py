"""`umbel dead`: look at the messages that were given up, send them again, or drop them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from umbel.cli.failures import EX_FAILURE
from umbel.cli.parts import Group, Option
from umbel.cli.state import State, pass_state, printable

if TYPE_CHECKING:
    from umbel.core.message import DeadLetter
    from umbel.engine.seam import DeadLetters

__all__ = ["dead"]

F = TypeVar("F", bound=Callable[..., Any])
_PAGE = 500
#: Headers that hold arguments.
_ARGUMENTS = ("argsrepr", "kwargsrepr")


@click.group(cls=Group)
def dead() -> None:
    """Look at dead letters: messages that were given up, with the reason.

    A letter is named by its number or by the id of its task.
    """


def _filters(function: F) -> F:
    task = click.option("--task", cls=Option, metavar="NAME", help="Of this task only.")
    queue = click.option("--queue", cls=Option, metavar="NAME", help="Of this queue only.")
    return task(queue(function))


@dead.command("list")
@_filters
@click.option(
    "-n", "--limit", cls=Option, type=click.IntRange(1), metavar="N", help="At most so many, the oldest first."
)
@click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print JSON.")
@pass_state
def list_letters(state: State, /, *, task: str | None, queue: str | None, limit: int | None, as_json: bool) -> None:
    """List the letters, oldest first."""
    chosen: list[DeadLetter] = []
    for letter in _all(_letters_of(state)):
        if _fits(letter, task, queue):
            chosen.append(letter)
            if len(chosen) == limit:
                break
    if as_json:
        state.print_json([_facts(letter) for letter in chosen])
        return
    if not chosen:
        state.echo("There are no dead letters.", err=True)
        return
    if not state.quiet:
        state.echo(f"{'number':>7}  {'buried':<20} {'crashes':>7}  task[id] (queue): reason")
    for letter in chosen:
        message = letter.message
        text = f"{message.task}[{message.id}] ({message.queue}): {_first_line(letter.reason)}"
        state.echo(f"{letter.number:>7}  {_time(letter.buried):<20} {letter.crashes:>7}  {printable(text)}")


@dead.command("show")
@click.argument("letters", nargs=-1, required=True)
@click.option("--args", "with_args", cls=Option, is_flag=True, help="Show the arguments too; they may be secret.")
@click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print JSON.")
@pass_state
def show_letters(state: State, /, *, letters: tuple[str, ...], with_args: bool, as_json: bool) -> int:
    """Show all that is known about letters: reason, headers, sizes; arguments only with --args."""
    found, missing = _pick(_letters_of(state), letters)
    shown = [_everything(state, letter, with_args=with_args) for letter in found]
    if as_json:
        state.print_json(shown)
    else:
        for entry in shown:
            for name, value in entry.items():
                _show(state, name, value)
            state.echo()
    return _report_missing(state, missing)


@dead.command("retry")
@click.argument("letters", nargs=-1)
@click.option(
    "--all", "everything", cls=Option, is_flag=True, help="All letters (with --task or --queue: all of those)."
)
@click.option("-f", "--force", cls=Option, is_flag=True, help="Do not ask.")
@_filters
@pass_state
def retry_letters(
    state: State, /, *, letters: tuple[str, ...], everything: bool, force: bool, task: str | None, queue: str | None
) -> int:
    """Send letters again as fresh messages; their stored results are forgotten."""
    store = _letters_of(state)
    numbers, missing = _chosen(store, letters, everything=everything, task=task, queue=queue)
    if everything and not force:
        click.confirm(f"Send {_count(len(numbers))} again?", abort=True)
    sent = store.revive(numbers, time.time()) if numbers else 0
    state.echo(f"Sent {_count(sent)} again.")
    if sent < len(numbers):
        state.error(f"{len(numbers) - sent} could not be routed and are still there: no queue is bound for them")
        return EX_FAILURE
    return _report_missing(state, missing)


@dead.command("drop")
@click.argument("letters", nargs=-1)
@click.option(
    "--all", "everything", cls=Option, is_flag=True, help="All letters (with --task or --queue: all of those)."
)
@click.option("-f", "--force", cls=Option, is_flag=True, help="Do not ask.")
@_filters
@pass_state
def drop_letters(
    state: State, /, *, letters: tuple[str, ...], everything: bool, force: bool, task: str | None, queue: str | None
) -> int:
    """Delete letters for good."""
    store = _letters_of(state)
    numbers, missing = _chosen(store, letters, everything=everything, task=task, queue=queue)
    if everything and not force:
        click.confirm(f"Delete {_count(len(numbers))} for good?", abort=True)
    state.echo(f"Deleted {_count(store.drop(numbers) if numbers else 0)}.")
    return _report_missing(state, missing)


# --- which letters ------------------------------------------------------------------------------------------


def _letters_of(state: State) -> DeadLetters:
    from umbel.core.errors import NotSupportedError

    letters = state.app.dead
    if letters is None:
        raise NotSupportedError("this broker keeps no dead letters")
    return letters


def _all(store: DeadLetters) -> Iterator[DeadLetter]:
    after = 0
    while page := store.browse(after=after, limit=_PAGE):
        yield from page
        after = page[-1].number


def _fits(letter: DeadLetter, task: str | None, queue: str | None) -> bool:
    message = letter.message
    return (task is None or message.task == task) and (queue is None or message.queue == queue)


def _pick(store: DeadLetters, names: tuple[str, ...]) -> tuple[list[DeadLetter], list[str]]:
    """Return the letters with these numbers or ids, and the names that no letter has."""
    numbers = [int(name) for name in names if name.isdecimal()]
    found = store.pick(numbers, [name for name in names if not name.isdecimal()])
    known = {str(letter.number) for letter in found} | {letter.message.id for letter in found}
    return found, [name for name in names if (str(int(name)) if name.isdecimal() else name) not in known]


def _chosen(
    store: DeadLetters, names: tuple[str, ...], *, everything: bool, task: str | None, queue: str | None
) -> tuple[list[int], list[str]]:
    if everything == bool(names):
        raise click.UsageError("name the letters (numbers or task ids; see umbel dead list), or give --all")
    if not everything and (task or queue):
        raise click.UsageError("--task and --queue go with --all")
    if everything:
        return [letter.number for letter in _all(store) if _fits(letter, task, queue)], []
    found, missing = _pick(store, names)
    return [letter.number for letter in found], missing


def _report_missing(state: State, missing: list[str]) -> int:
    for name in missing:
        state.error(f"There is no dead letter {printable(name)}; see umbel dead list")
    return EX_FAILURE if missing else 0


# --- showing them -------------------------------------------------------------------------------------------


def _facts(letter: DeadLetter) -> dict[str, Any]:
    message = letter.message
    return {
        "number": letter.number,
        "id": message.id,
        "task": message.task,
        "queue": message.queue,
        "buried": _time(letter.buried),
        "crashes": letter.crashes,
        "reason": letter.reason,
    }


def _everything(state: State, letter: DeadLetter, *, with_args: bool) -> dict[str, Any]:
    from umbel.core import protocol

    message = letter.message
    entry = _facts(letter) | {
        "exchange": message.exchange,
        "priority": message.priority,
        "expires": _time(message.expires) if message.expires else None,
        "generation": message.generation,
        "head": f"{len(message.head)} bytes",
        "body": f"{len(message.body)} bytes",
    }
    headers = protocol.headers_of(message.head)
    hidden = {} if with_args else dict.fromkeys(_ARGUMENTS)
    entry["headers"] = {
        name: value for name, value in headers.items() if name not in hidden and value not in (None, [], {})
    }
    if with_args:
        entry["arguments"] = _arguments(state, message)
    return entry


def _arguments(state: State, message: Any) -> Any:
    from umbel.core import protocol, serialization
    from umbel.core.limits import DEFAULT_LIMITS

    head = protocol.read_head(message.head, DEFAULT_LIMITS)
    if isinstance(head, protocol.Quarantined):
        return f"cannot be read: {head.reason}"
    accept = serialization.accept_set(state.app.conf.accept_content)
    payload = protocol.read_body(head, message.body, accept, DEFAULT_LIMITS)
    if isinstance(payload, protocol.Quarantined):
        return f"cannot be read: {payload.reason}"
    return {"args": payload.args, "kwargs": payload.kwargs}


def _show(state: State, name: str, value: Any) -> None:
    if isinstance(value, dict):
        state.echo(f"{name}:")
        for key, item in value.items():
            state.echo(f"  {printable(str(key))}: {printable(str(item))}")
    else:
        state.echo(f"{name + ':':<12}{printable(str(value))}")


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _first_line(text: str, width: int = 100) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= width else line[: width - 1] + "…"


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"
