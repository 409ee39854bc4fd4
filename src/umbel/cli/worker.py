"""`umbel worker`: start a worker and stay until it is told to stop."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from umbel.cli.parts import Command
from umbel.cli.state import State, pass_state
from umbel.cli.worker_options import worker_options

if TYPE_CHECKING:
    from umbel.app.app import Umbel
    from umbel.worker.worker import Worker

__all__ = ["worker"]

_PICKLE_AS_ROOT = """this worker would run as root and accept pickle: who can write to the broker could be root.
Run it as another user, take pickle out of accept_content, or set C_FORCE_ROOT=1 in the environment if you must"""
#: What the worker itself takes from the command line.
_PASSED_ON = (
    "concurrency",
    "queues",
    "exclude_queues",
    "time_limit",
    "soft_time_limit",
    "max_tasks_per_child",
    "max_memory_per_child",
    "prefetch_multiplier",
    "purge",
)


@click.command(cls=Command)
@worker_options
@click.argument("settings", nargs=-1, metavar="[-- NAME=VALUE ...]")
@pass_state
@click.pass_context
def worker(ctx: click.Context, state: State, /, **options: Any) -> int:
    """Start a worker.

    After `--`, settings may be given: `-- worker_lease=60 .prefetch_multiplier=1` (a name that begins with a dot
    belongs to `worker`). TERM stops it warm: running tasks are finished, what has not started goes back; QUIT, or INT
    twice, stops it at once.
    """
    from umbel.app.find import import_modules

    state.debug = state.debug or options["loglevel"] == "DEBUG"
    app = state.need_app("worker")
    configure(app, options)
    refuse_pickle_as_root(app)
    program = make_worker(ctx, app, options)
    conf = app.conf
    logfile = options["logfile"] or conf.worker_logfile
    # A process that this command started for one of its parts is neither announced nor locked once more.
    is_part = "UMBEL_WORKER_ROLE" in os.environ
    pidfile = None if is_part else options["pidfile"] or conf.worker_pidfile
    with _pidfile(pidfile, program.hostname):
        import_modules(app)
        if not is_part:
            show_banner(state, program, options["loglevel"], logfile)
        app.log.setup(
            options["loglevel"],
            logfile,
            redirect_stdouts=conf.worker_redirect_stdouts,
            redirect_level=conf.worker_redirect_stdouts_level,
            colorize=False if state.no_color else None,
            hostname=program.hostname,
        )
        return _run(program, state)


def _run(program: Worker, state: State) -> int:
    """Run the worker until its end; what ends it at the start is in its log, where everything else about it is."""
    from umbel.cli.failures import said, status_of
    from umbel.core.errors import UmbelError

    try:
        return program.start()
    except UmbelError as error:
        logging.getLogger("umbel.worker").critical("The worker cannot run: %s", said(error), exc_info=state.debug)
        return status_of(error)


def _pidfile(name: str | None, hostname: str) -> Any:
    if not name:
        return nullcontext()
    from umbel.app.nodenames import expand_file_name
    from umbel.cli.pidfile import locked_pidfile

    return locked_pidfile(expand_file_name(name, hostname))


def configure(app: Umbel, options: dict[str, Any]) -> None:
    """Put what the command line says about settings into the app's settings."""
    if options["settings"]:
        app.conf.from_cmdline(list(options["settings"]), namespace="worker")
    if options["include"]:
        app.conf.include = [*(app.conf.include or ()), *options["include"]]
    if options["json_logs"]:
        app.conf.worker_log_json = True
    if options["pool_start_method"]:
        app.conf.worker_pool_start_method = options["pool_start_method"]
    if options["disable_prefetch"]:
        app.conf.worker_disable_prefetch = True


def refuse_pickle_as_root(app: Umbel) -> None:
    """Raise SecurityError where pickle would be read by root."""
    from umbel.core.errors import SecurityError
    from umbel.core.serialization import accept_set

    if not hasattr(os, "getuid") or os.getuid() != 0 or os.environ.get("C_FORCE_ROOT"):
        return
    if accept_set(["pickle"]) & accept_set(app.conf.accept_content):
        raise SecurityError(_PICKLE_AS_ROOT)


def make_worker(ctx: click.Context, app: Umbel, options: dict[str, Any]) -> Worker:
    """Make the worker; what is wrong with an option is a usage error."""
    from umbel.app.nodenames import default_nodename, host_format
    from umbel.core.errors import ImproperlyConfigured, QueueNotFound
    from umbel.worker.worker import Worker, concurrency_of, pool_of

    try:
        if options["pool"]:
            pool_of(options["pool"])
        if options["concurrency"]:
            concurrency_of(options["concurrency"])
        hostname = host_format(default_nodename(options["hostname"]))
    except ImproperlyConfigured as error:
        raise click.UsageError(str(error), ctx) from None
    passed = {name: options[name] for name in _PASSED_ON}
    try:
        return Worker(
            app, hostname=hostname, pool=options["pool"], on_ready=_say_ready, on_stopping=_say_stopping, **passed
        )
    except (KeyError, QueueNotFound) as error:
        raise click.UsageError(str(error.args[0]) if error.args else repr(error), ctx) from None


def show_banner(state: State, program: Worker, level: str, logfile: str | None) -> None:
    """Print the banner, and from INFO on the tasks."""
    if state.quiet:
        return
    from umbel.app.log import mlevel
    from umbel.cli.banner import banner, task_list

    state.echo(banner(program, logfile=logfile, level=level))
    number = mlevel(level)
    if number <= logging.INFO:
        state.echo(task_list(program.app, builtins=number <= logging.DEBUG))


def _say_ready(program: Worker) -> None:
    logging.getLogger("celery.worker").info("%s ready.", program.hostname)


def _say_stopping(program: Worker, _signum: int, how: str) -> None:
    what = "running tasks are finished first; the same signal again stops at once" if how == "Warm" else "at once"
    logging.getLogger("celery.worker").warning("%s: %s shutdown (%s)", program.hostname, how.lower(), what)
