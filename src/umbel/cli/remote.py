"""`umbel status`, `inspect` and `control`: ask the workers that run, and tell them what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from umbel.cli.failures import Unavailable
from umbel.cli.parts import COMMA_LIST, Command, Option, nearest
from umbel.cli.state import State, pass_state, printable

__all__ = ["control", "inspect", "status"]

F = TypeVar("F", bound=Callable[..., Any])
Arguments = dict[str, Any]


class Method(NamedTuple):
    """One thing that can be asked of a worker or told it."""

    #: How its arguments are written, for help and errors.
    usage: str
    text: str
    #: From the words after the name to the arguments of the command; None where they do not fit.
    read: Callable[[tuple[str, ...]], Arguments | None]


def _nothing(words: tuple[str, ...]) -> Arguments | None:
    return None if words else {}


def _items(words: tuple[str, ...]) -> Arguments | None:
    return {"taskinfoitems": list(words)}


def _query(words: tuple[str, ...]) -> Arguments | None:
    return {"ids": list(words)} if words else None


def _with_defaults(words: tuple[str, ...]) -> Arguments | None:
    return {"with_defaults": bool(words)} if words in ((), ("with_defaults",)) else None


def _ids(words: tuple[str, ...]) -> Arguments | None:
    return {"task_id": list(words)} if words else None


def _signal_and_ids(words: tuple[str, ...]) -> Arguments | None:
    return {"signal": words[0], "task_id": list(words[1:])} if len(words) > 1 else None


def _stamps(words: tuple[str, ...]) -> Arguments | None:
    headers: dict[str, list[str]] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not (name and found):
            return None
        headers.setdefault(name, []).append(value)
    return {"headers": headers} if headers else None


def _signal_and_stamps(words: tuple[str, ...]) -> Arguments | None:
    stamps = _stamps(words[1:])
    return None if stamps is None else {"signal": words[0], **stamps}


def _task_and_rate(words: tuple[str, ...]) -> Arguments | None:
    return {"task_name": words[0], "rate_limit": words[1]} if len(words) == 2 else None


INSPECT: dict[str, Method] = {
    "ping": Method("", "Who is there.", _nothing),
    "active": Method("", "Tasks that run.", _nothing),
    "reserved": Method("", "Tasks that a worker holds and has not started.", _nothing),
    "scheduled": Method("", "Tasks held back by a rate limit; those with an eta wait in the broker.", _nothing),
    "query_task": Method("ID...", "What workers do with these tasks.", _query),
    "registered": Method("[ATTRIBUTE...]", "Tasks that a worker knows, and attributes of them.", _items),
    "conf": Method("[with_defaults]", "Settings of a worker; secrets are hidden.", _with_defaults),
    "report": Method("", "Versions and settings, for reports of errors.", _nothing),
    "stats": Method("", "Counters, processes, memory.", _nothing),
    "active_queues": Method("", "Queues that a worker consumes.", _nothing),
}
CONTROL: dict[str, Method] = {
    "revoke": Method("ID...", "End tasks before they start, for good.", _ids),
    "terminate": Method("SIGNAL ID...", "Revoke tasks and kill those that run.", _signal_and_ids),
    "revoke_by_stamped_headers": Method("STAMP=VALUE...", "End tasks with one of these stamps.", _stamps),
    "terminate_by_stamped_headers": Method(
        "SIGNAL STAMP=VALUE...", "Revoke tasks by stamps and kill those that run.", _signal_and_stamps
    ),
    "rate_limit": Method("TASK RATE", "Start so many of a task at most: 10/s, 30/m, 5/h; 0: no limit.", _task_and_rate),
    "shutdown": Method("", "Stop workers warm.", _nothing),
}
_REVOKING = frozenset({"revoke", "terminate", "revoke_by_stamped_headers", "terminate_by_stamped_headers"})
_CONTROL_NOT_YET = dict.fromkeys(
    (
        "add_consumer",
        "autoscale",
        "cancel_consumer",
        "disable_events",
        "election",
        "enable_events",
        "heartbeat",
        "pool_grow",
        "pool_restart",
        "pool_shrink",
        "time_limit",
    ),
    "",
)


def _addressed(function: F) -> F:
    for option in (
        click.option("-j", "--json", "as_json", cls=Option, is_flag=True, help="Print JSON."),
        click.option("-d", "--destination", cls=Option, type=COMMA_LIST, metavar="NODES",
                     help="These workers only; commas between the names."),
        click.option("-t", "--timeout", cls=Option, type=click.FloatRange(0, min_open=True), default=1.0,
                     show_default=True, metavar="S", help="How long to wait for replies."),
    ):  # fmt: skip
        function = option(function)
    return function


def _listing(methods: dict[str, Method]) -> str:
    width = max(len(f"{name} {method.usage}") for name, method in methods.items())
    lines = [f"  {f'{name} {method.usage}':<{width}}  {method.text}" for name, method in methods.items()]
    return "\b\nMethods:\n" + "\n".join(lines)


def _show_list(methods: dict[str, Method]) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(_listing(methods).removeprefix("\b\n"))
            ctx.exit()

    return callback


def _with_methods(methods: dict[str, Method]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        function = click.argument("words", nargs=-1, metavar="[ARGUMENT]...")(function)
        function = click.argument("method")(function)
        return click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_show_list(methods),
                            help="List the methods.")(_addressed(function))  # fmt: skip

    return decorate


@click.command(cls=Command)
@_addressed
@pass_state
def status(state: State, /, *, timeout: float, destination: list[str] | None, as_json: bool) -> None:
    """Show which workers are online. Exit status 69 when there is none."""
    replies = _ask(state, "ping", {}, timeout, destination)
    if as_json:
        state.print_json(replies)
        return
    for node in sorted(replies):
        state.echo(f"{printable(node)}: {state.style('OK', fg='green', bold=True)}")
    if not state.quiet:
        state.echo(f"\n{len(replies)} node{'' if len(replies) == 1 else 's'} online.")


@click.command(cls=Command, epilog=_listing(INSPECT))
@_with_methods(INSPECT)
@pass_state
@click.pass_context
def inspect(
    ctx: click.Context,
    state: State,
    /,
    *,
    method: str,
    words: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> None:
    """Ask workers what they are doing. Exit status 69 when none answers."""
    from umbel.app.control import NOT_ANSWERED

    arguments = _arguments(ctx, INSPECT, NOT_ANSWERED, method, words)
    _print_replies(state, _ask(state, method, arguments, timeout, destination), as_json=as_json)


@click.command(cls=Command, epilog=_listing(CONTROL))
@_with_methods(CONTROL)
@pass_state
@click.pass_context
def control(
    ctx: click.Context,
    state: State,
    /,
    *,
    method: str,
    words: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> None:
    """Tell workers what to do. Exit status 69 when none answers.

    What is revoked stays revoked for workers that start later, also when none answers now.
    """
    arguments = _arguments(ctx, CONTROL, _CONTROL_NOT_YET, method, words)
    if method == "shutdown":
        replies = _shut_down(state, timeout, destination)
    elif method in _REVOKING:
        replies = _revoke(state, arguments, timeout, destination)
    else:
        replies = _ask(state, method, arguments, timeout, destination)
    _print_replies(state, replies, as_json=as_json)


def _arguments(
    ctx: click.Context, methods: dict[str, Method], not_yet: Mapping[str, str], name: str, words: tuple[str, ...]
) -> Arguments:
    if name not in methods:
        there_are = f"There are: {', '.join(methods)}"
        if name in not_yet:
            why = f": {not_yet[name]}" if not_yet[name] else " yet"
            raise click.UsageError(f"umbel's workers do not know {name!r}{why}. {there_are}", ctx)
        raise click.UsageError(f"there is no method {name!r}.{nearest(name, methods)} {there_are}", ctx)
    arguments = methods[name].read(words)
    if arguments is None:
        usage = f"{ctx.info_name} {name} {methods[name].usage}".rstrip()
        raise click.UsageError(f"the arguments do not fit; it goes: {usage}", ctx)
    if "signal" in arguments:
        arguments["signal"] = _signal(ctx, arguments["signal"])
    return arguments


def _signal(ctx: click.Context, text: str) -> str:
    import signal

    name = text.upper()
    if name.isdecimal() and int(name) in [each.value for each in signal.Signals]:
        return signal.Signals(int(name)).name
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signal.Signals.__members__:
        raise click.UsageError(f"{text!r} is no signal; write it like TERM or SIGKILL", ctx)
    return name


def _ask(
    state: State, method: str, arguments: Arguments, timeout: float, destination: list[str] | None
) -> dict[str, Any]:
    """Return the answers by node; a node that is named and does not answer is told about."""
    found = state.app.control.broadcast(method, arguments, destination, reply=True, timeout=timeout)
    return _answers(state, found, timeout, destination)


def _answers(state: State, found: Any, timeout: float, destination: list[str] | None) -> dict[str, Any]:
    replies = {node: answer for reply in found or () for node, answer in reply.items()}
    if not replies:
        raise Unavailable(f"no nodes replied within {timeout:g} s{_named(destination)}")
    silent = sorted(set(destination or ()) - set(replies))
    if silent:
        state.error(f"No reply within {timeout:g} s from {', '.join(silent)}")
    return replies


def _named(destination: list[str] | None) -> str:
    return f" (asked: {', '.join(destination)})" if destination else ": is a worker running on this broker?"


def _revoke(state: State, arguments: Arguments, timeout: float, destination: list[str] | None) -> dict[str, Any]:
    """Revoke through the app, which stores the revocation whether or not anybody answers."""
    control = state.app.control
    by_stamps = "headers" in arguments
    found = (control.revoke_by_stamped_headers if by_stamps else control.revoke)(
        arguments["headers"] if by_stamps else arguments["task_id"],
        destination=destination,
        terminate="signal" in arguments,
        signal=arguments.get("signal", "SIGTERM"),
        reply=True,
        timeout=timeout,
    )
    if not found:
        raise Unavailable(
            f"the revocation is stored and holds, but no nodes replied within {timeout:g} s{_named(destination)}"
        )
    return _answers(state, found, timeout, destination)


def _shut_down(state: State, timeout: float, destination: list[str] | None) -> dict[str, Any]:
    """Ask first who is there: a worker that stops does not answer."""
    nodes = sorted(_ask(state, "ping", {}, timeout, destination))
    state.app.control.broadcast("shutdown", {}, nodes)
    return {node: {"ok": "told to shut down"} for node in nodes}


def _print_replies(state: State, replies: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        state.print_json(replies)
        return
    for node, answer in sorted(replies.items()):
        failed = isinstance(answer, dict) and "error" in answer
        word = state.style("ERROR", fg="red", bold=True) if failed else state.style("OK", fg="green", bold=True)
        state.echo(f"->  {printable(node)}: {word}")
        for line in _lines(answer):
            state.echo(f"        {line}")
    if not state.quiet:
        state.echo(f"\n{len(replies)} node{'' if len(replies) == 1 else 's'} replied.")


def _lines(answer: Any) -> list[str]:
    if isinstance(answer, dict) and set(answer) in ({"ok"}, {"error"}):
        return [printable(str(next(iter(answer.values()))))]
    if isinstance(answer, dict) or (isinstance(answer, list) and any(isinstance(item, dict) for item in answer)):
        return json.dumps(answer, indent=2, default=str).splitlines()
    if isinstance(answer, list):
        return [f"* {printable(str(item))}" for item in answer] or ["- empty -"]
    return [printable(str(answer))]
