"""The command `umbel` itself: global options, the table of commands, plugins."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from umbel.cli.failures import run
from umbel.cli.parts import Group, Option, nearest
from umbel.cli.state import State

__all__ = ["main", "umbel"]

#: Command → what it does, for the help page; its module below `umbel.cli` is imported when it is named.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "worker": ("worker", "Start a worker."),
    "call": ("call", "Send a task by name."),
    "result": ("result", "Print the result of a task."),
    "graph": ("graph", "Draw the workflow of a task."),
    "status": ("remote", "Show which workers are online."),
    "inspect": ("remote", "Ask workers what they are doing."),
    "control": ("remote", "Tell workers what to do."),
    "queues": ("queues", "Show how many messages wait in each queue."),
    "purge": ("purge", "Delete waiting messages."),
    "dead": ("dead", "Look at dead letters; send them again or drop them."),
    "report": ("report", "Print what a bug report needs."),
}

#: Commands that Celery has and umbel does not, with what to do instead.
NOT_YET: Mapping[str, str] = {
    "beat": "there is no scheduler of periodic tasks; a cron job may run umbel call",
    "events": "workers send no events; look with umbel status and umbel inspect",
    "multi": "start each worker with a service manager such as systemd, or run umbel worker once for each",
    "shell": "start python and import your app",
    "migrate": "let the workers of the old broker finish what waits there",
    "amqp": "rabbitmqctl and RabbitMQ's management page show exchanges, queues and bindings",
    "list": "umbel inspect active_queues and umbel queues show the queues",
    "logtool": "write the log as JSON lines (umbel worker --json-logs) and read it with jq",
    "upgrade": "old setting names go on working; each warns with its new name",
}
PLUGIN_GROUPS = ("umbel.commands", "celery.commands")


class Umbel(Group):
    """The group of all commands; those of others come from entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names: our own first."""
        del ctx
        return [*COMMANDS, *sorted(set(_plugins()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"umbel.cli.{COMMANDS[cmd_name][0]}")
            command: click.Command = getattr(module, cmd_name)
            return command
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else _load_plugin(plugin)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        rows = [(name, text) for name, (_module, text) in COMMANDS.items()]
        rows += [(name, "") for name in self.list_commands(ctx) if name not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def unknown(self, ctx: click.Context, name: str) -> str:
        """Say what to do where Celery has a command and umbel has not."""
        if name in NOT_YET:
            return f"umbel has no command {name!r} yet: {NOT_YET[name]}"
        names = self.list_commands(ctx)
        return f"there is no command {name!r}.{nearest(name, names)} There are: {', '.join(names)}"


def _plugins() -> dict[str, Any]:
    """Return the entry points of other packages, by name."""
    from importlib.metadata import entry_points

    found: dict[str, Any] = {}
    for group in PLUGIN_GROUPS:
        for point in entry_points(group=group):
            found.setdefault(point.name, point)
    return found


def _load_plugin(point: Any) -> click.Command | None:
    """Load a command of another package; one that is broken is told about and is as good as absent."""
    try:
        command = point.load()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it must not break the others
        click.echo(f"The plugin {point.name} ({point.value}) cannot be loaded: {error!r}", err=True)
        return None
    if not isinstance(command, click.Command):
        click.echo(f"The plugin {point.name} ({point.value}) is no click command", err=True)
        return None
    return command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from umbel.cli.banner import version_of_umbel

        click.echo(version_of_umbel())
        ctx.exit()


@click.group(
    cls=Umbel,
    name="umbel",
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": "UMBEL", "help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-A", "--app", "app_name", cls=Option, envvar=("UMBEL_APP", "CELERY_APP", "APP"), metavar="MODULE",
              help="The app: module, module:attribute or package.")  # fmt: skip
@click.option("-b", "--broker", cls=Option, envvar="BROKER_URL", metavar="URL", help="Broker, in place of broker_url.")
@click.option("--result-backend", cls=Option, envvar="RESULT_BACKEND", metavar="URL",
              help="Store of results, in place of result_backend.")  # fmt: skip
@click.option("--loader", cls=Option, hidden=True)
@click.option("--config", cls=Option, envvar=("UMBEL_CONFIG_MODULE", "CELERY_CONFIG_MODULE", "CONFIG_MODULE"),
              metavar="MODULE", help="Module with the settings, in place of the app's own.")  # fmt: skip
@click.option("--workdir", cls=Option, type=click.Path(exists=True, file_okay=False), metavar="FOLDER",
              help="Change into this folder first.")  # fmt: skip
@click.option("-C", "--no-color", cls=Option, is_flag=True, help="No colours (also with NO_COLOR in the environment).")
@click.option("-q", "--quiet", cls=Option, is_flag=True, help="Less output: no banner, no headings.")
@click.option("--skip-checks", cls=Option, is_flag=True, envvar="SKIP_CHECKS",
              help="Set CELERY_SKIP_CHECKS=true for the program, as Celery does.")  # fmt: skip
@click.option("--debug", cls=Option, is_flag=True, help="Show the traceback of errors.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the version.")  # fmt: skip
@click.pass_context
def umbel(
    ctx: click.Context,
    *,
    app_name: str | None,
    broker: str | None,
    result_backend: str | None,
    loader: str | None,
    config: str | None,
    workdir: str | None,
    no_color: bool,
    quiet: bool,
    skip_checks: bool,
    debug: bool,
) -> None:
    """A distributed task queue: start workers, send tasks, look after queues."""
    if loader:
        raise click.UsageError("--loader is not supported: there is one loader; name a settings module with --config")
    if workdir:
        os.chdir(workdir)
    if broker:
        os.environ["UMBEL_BROKER_URL"] = broker
    if result_backend:
        os.environ["UMBEL_RESULT_BACKEND"] = result_backend
    if skip_checks:
        os.environ["CELERY_SKIP_CHECKS"] = "true"
    state = ctx.ensure_object(State)
    state.app_name, state.config = app_name, config
    state.no_color, state.quiet, state.debug = no_color or bool(os.environ.get("NO_COLOR")), quiet, debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None, *, obj: Any = None) -> int:
    """Run the command line `argv` (default: that of this process); return the exit status.

    `obj` is the app where `-A` names none (Celery: `app.start()`).
    """
    state = State(debug="--debug" in (sys.argv if argv is None else argv), given=obj)
    args = None if argv is None else list(argv)
    return run(
        lambda: umbel.main(args, prog_name="umbel", standalone_mode=False, obj=state),
        debug=lambda: state.debug,
    )
