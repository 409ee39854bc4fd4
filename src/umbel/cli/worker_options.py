"""The options of `umbel worker`: those that work, those without effect, and those that are refused with advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from umbel.cli.parts import COMMA_LIST, LOG_LEVEL, Option

__all__ = ["WITHOUT_EFFECT", "NOT_SUPPORTED", "worker_options"]

F = TypeVar("F", bound=Callable[..., Any])


class Refused(NamedTuple):
    """An option of `celery worker` that umbel's has not."""

    flags: tuple[str, ...]
    #: What to do instead.
    advice: str
    is_flag: bool = False


_SERVICE = "let the service manager do it, for example systemd with User=, Group= and UMask="
_BEAT = "umbel has no scheduler of periodic tasks yet; a cron job may run umbel call"
NOT_SUPPORTED: tuple[Refused, ...] = (
    Refused(("-B", "--beat"), _BEAT, is_flag=True),
    Refused(("-s", "--schedule-filename", "--schedule"), _BEAT),
    Refused(("--scheduler",), _BEAT),
    Refused(("--autoscale",), "the number of executors is fixed; give --concurrency (a waiting executor costs little)"),
    Refused(("-D", "--detach"), "the worker stays in the foreground; start it with a service manager", is_flag=True),
    Refused(("-S", "--statedb"), "leave it out: revoked ids are kept by the broker's engine and outlive every restart"),
    Refused(("-E", "--task-events", "--events"), "workers send no events yet; look with umbel inspect", is_flag=True),
    Refused(("--uid",), _SERVICE),
    Refused(("--gid",), _SERVICE),
    Refused(("--umask",), _SERVICE),
    Refused(("--executable",), "start the worker with that Python: /path/to/python -m umbel worker"),
)

#: Options that are accepted and change nothing, with the reason.
WITHOUT_EFFECT: tuple[tuple[str, str], ...] = (
    ("--without-gossip", "workers do not gossip"),
    ("--without-mingle", "workers share revoked ids through the engine"),
    ("--without-heartbeat", "no heartbeat events are sent; the heartbeat of leases cannot be left out"),
)


def _refuse(refused: Refused) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            raise click.UsageError(f"{'/'.join(refused.flags)} is not supported: {refused.advice}", ctx)

    return callback


_POOLS = "prefork, threads, asyncio or solo"
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-n", "--hostname", cls=Option, metavar="NAME",
                 help="Node name, by default umbel@%h: %h is the host, %n its first part, %d its domain."),
    click.option("-l", "--loglevel", cls=Option, type=LOG_LEVEL, default="WARNING", show_default=True,
                 help="DEBUG, INFO, WARNING, ERROR, CRITICAL or FATAL, in any case."),
    click.option("-f", "--logfile", cls=Option, metavar="FILE",
                 help="Log into a file instead of stderr; %n name, %h host, %i number of the process."),
    click.option("--json-logs", cls=Option, is_flag=True, help="Log one JSON object a line (worker_log_json)."),
    click.option("--pidfile", cls=Option, metavar="FILE", help="Write the process id there; exit 73 if it is held."),
    click.option("-c", "--concurrency", cls=Option, metavar="N|auto",
                 help="How many executors; by default one per processor. auto: as many as this process may use."),
    click.option("-P", "--pool", cls=Option, metavar="POOL", help=f"{_POOLS}; by default worker_pool."),
    click.option("--pool-start-method", cls=Option, type=click.Choice(["fork", "spawn"]),
                 help="Fork executor processes, or start them afresh (worker_pool_start_method)."),
    click.option("-Q", "--queues", cls=Option, type=COMMA_LIST, metavar="A,B", help="Consume these queues only."),
    click.option("-X", "--exclude-queues", cls=Option, type=COMMA_LIST, metavar="A,B", help="Consume all but these."),
    click.option("-I", "--include", cls=Option, type=COMMA_LIST, metavar="A,B", help="Import these modules too."),
    click.option("--time-limit", cls=Option, type=float, metavar="S", help="Kill a task after so many seconds."),
    click.option("--soft-time-limit", cls=Option, type=float, metavar="S",
                 help="Raise SoftTimeLimitExceeded in a task after so many seconds."),
    click.option("--max-tasks-per-child", cls=Option, type=click.IntRange(1), metavar="N",
                 help="Replace an executor after so many tasks."),
    click.option("--max-memory-per-child", cls=Option, type=click.IntRange(1), metavar="KIB",
                 help="Replace an executor that holds more memory after a task."),
    click.option("--prefetch-multiplier", cls=Option, type=click.IntRange(0), metavar="N",
                 help="How many messages an executor may hold, the running one included."),
    click.option("--disable-prefetch", cls=Option, is_flag=True, help="Take a message only when an executor is free."),
    click.option("--purge", "--discard", cls=Option, is_flag=True, help="Delete what waits in the queues first."),
    click.option("-O", "--optimization", cls=Option, type=click.Choice(["default", "fair", "fast", "fcfs"]),
                 expose_value=False, help="No effect: scheduling is always fair."),
    click.option("--heartbeat-interval", cls=Option, type=int, metavar="S", expose_value=False,
                 help="No effect: no heartbeat events are sent."),
)  # fmt: skip


def worker_options(function: F) -> F:
    """Give a command all options of `umbel worker`."""
    for refused in NOT_SUPPORTED:
        option = click.option(
            *refused.flags,
            cls=Option,
            is_flag=refused.is_flag,
            hidden=True,
            expose_value=False,
            callback=_refuse(refused),
        )
        function = option(function)
    for flag, why in reversed(WITHOUT_EFFECT):
        function = click.option(flag, cls=Option, is_flag=True, expose_value=False, help=f"No effect: {why}.")(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
