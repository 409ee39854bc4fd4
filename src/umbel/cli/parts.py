"""What the commands are made of: options with Celery's environment variables, groups that suggest, types of values."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

__all__ = [
    "COMMA_LIST",
    "ISO_TIME",
    "ISO_TIME_OR_SECONDS",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "LOG_LEVEL",
    "Command",
    "Group",
    "Option",
    "nearest",
]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
#: Options that belong before the command.
GLOBAL_OPTIONS = frozenset(
    {"-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir"}
    | {"-C", "--no-color", "-q", "--quiet", "--version", "--skip-checks", "--debug"}
)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean …?` for the candidates that look like `name`, or nothing."""
    near = difflib.get_close_matches(name, list(candidates), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""


class Option(click.Option):
    """An option that also reads `UMBEL_<COMMAND>_<OPTION>`, else `CELERY_<COMMAND>_<OPTION>`."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return what the environment says."""
        found = super().resolve_envvar_value(ctx)
        prefix = ctx.auto_envvar_prefix or ""
        if found is None and self.allow_from_autoenv and prefix.startswith("UMBEL") and self.name:
            found = os.environ.get(f"CELERY{prefix.removeprefix('UMBEL')}_{self.name.upper()}") or None
        return found


class _Suggesting(click.Command):
    """Says where a global option belongs, and which option may have been meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with more helpful errors."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if ctx.parent is not None and error.option_name in GLOBAL_OPTIONS:
                value = " …" if error.option_name in {"-A", "--app"} else ""
                raise click.UsageError(
                    f"{error.option_name} stands before the command: "
                    f"{ctx.find_root().info_name} {error.option_name}{value} {ctx.info_name}",
                    ctx,
                ) from None
            raise


class Command(_Suggesting):
    """A command of umbel."""


class Group(_Suggesting, click.Group):
    """A group of commands that says which command may have been meant. Without a command it shows its help."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with what to do."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and not args[0].startswith("-"):
            ctx.fail(self.unknown(ctx, args[0]))
        return super().resolve_command(ctx, args)

    def unknown(self, ctx: click.Context, name: str) -> str:
        """Return what to say about a command that is not there."""
        names = self.list_commands(ctx)
        return f"there is no command {name!r}.{nearest(name, names)} There are: {', '.join(names)}"


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic in newer versions of click only.
    _ParamType = click.ParamType


class LogLevel(_ParamType):
    """Name of a log level in any case."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name in capitals."""
        name = str(value).upper()
        if name.isdigit():
            return name
        if name not in LEVELS:
            self.fail(f"{value!r} is no log level.{nearest(name, LEVELS)} There are {', '.join(LEVELS)}", param, ctx)
        return name


class CommaList(_ParamType):
    """Names with commas between them."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the names without the space around them."""
        del param, ctx
        parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value
        return [name for part in parts if (name := str(part).strip())]


class Json(_ParamType):
    """A JSON array or object."""

    def __init__(self, kind: type[list[Any] | dict[str, Any]]) -> None:
        self.kind: type[Any] = kind
        self.name = "json"
        self._word, self._example = ("array", "[1, 2]") if kind is list else ("object", '{"x": 1}')

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value."""
        if isinstance(value, self.kind):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(found, self.kind):
            self.fail(f"{value!r} is no JSON {self._word}; write it like '{self._example}'", param, ctx)
        return found


class IsoTime(_ParamType):
    """A time in ISO 8601, aware (without a zone it is UTC); optionally seconds from now instead."""

    def __init__(self, *, or_seconds: bool = False) -> None:
        self.name = "time or seconds" if or_seconds else "time"
        self._or_seconds = or_seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        """Return the time, or seconds."""
        if isinstance(value, (datetime, float)):
            return value
        if self._or_seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            also = " nor a number of seconds" if self._or_seconds else ""
            self.fail(f"{value!r} is no ISO 8601 time{also}; write it like 2030-01-31T12:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


LOG_LEVEL = LogLevel()
COMMA_LIST = CommaList()
JSON_ARRAY = Json(list)
JSON_OBJECT = Json(dict)
ISO_TIME = IsoTime()
ISO_TIME_OR_SECONDS = IsoTime(or_seconds=True)
