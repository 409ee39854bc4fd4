"""`umbel report`: what a bug report needs."""

from __future__ import annotations

import sqlite3
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from umbel.cli.banner import platform_lines
from umbel.cli.parts import Command
from umbel.cli.state import State, pass_state

__all__ = ["report"]

_PACKAGES = ("msgspec", "click", "redis", "amqp", "psycopg", "pydantic", "celery")


@click.command(cls=Command)
@pass_state
def report(state: State, /) -> None:
    """Print versions, platform, engine and settings; secrets are hidden."""
    lines = [*platform_lines(), ("sqlite", sqlite3.sqlite_version), *_packages()]
    if state.app_name or state.given is not None:
        app = state.app
        caps, own = app.engine.caps, len(app.tasks.own())
        lines += [
            ("app", f"{app.main or '?'} ({own} {'task' if own == 1 else 'tasks'})"),
            ("durability", f"class {caps.durability}, {caps.durability_text}"),
            *_said_by_servers(app),
        ]
    for name, text in lines:
        state.echo(f"{name + ':':<12}{text}")
    if state.app_name or state.given is not None:
        state.echo("\n[settings]\n" + state.app.conf.humanize(with_defaults=False))


def _said_by_servers(app: Any) -> list[tuple[str, str]]:
    """What the servers' own settings mean for messages and results, where an engine tells; no server is needed."""
    from umbel.core.errors import OperationalError

    lines: list[str] = []
    for part in (app.engine.broker, app.engine.store):
        try:
            lines += getattr(part, "warnings", list)()
        except OperationalError as error:
            lines.append(f"not asked: {error}")
    return [("server", line) for line in dict.fromkeys(lines)]


def _packages() -> list[tuple[str, str]]:
    found = []
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
