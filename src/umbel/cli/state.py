"""What the global options said, shared by all commands: most of all the app, found when a command first needs it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from umbel.app.app import Umbel

__all__ = ["State", "pass_state", "printable"]

_MAKES_AN_APP = re.compile(r"^\w+\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(?:Umbel|Celery)\(", re.MULTILINE)


@dataclass
class State:
    """The global options. `app` is the app that they name."""

    app_name: str | None = None
    config: str | None = None
    no_color: bool = False
    quiet: bool = False
    #: Show tracebacks of errors that are otherwise one line.
    debug: bool = False
    #: The app that `app.start()` runs the command line for.
    given: Any = field(default=None, repr=False)
    _app: Any = field(default=None, repr=False)

    @property
    def app(self) -> Umbel:
        """The app that `-A` names; without `-A` one that has no tasks, where the environment names a broker."""
        if self._app is None:
            self._app = self.given if self.given is not None and not self.app_name else self._find()
            if self.config:
                self._app.config_from_object(self.config)
        app: Umbel = self._app
        return app

    def _find(self) -> Any:
        if self.app_name:
            from umbel.app.find import find_app

            return find_app(self.app_name)
        if not self.config and not self.names_a_broker():
            raise click.UsageError(f"which app? Name the module that holds it: umbel -A proj …{_suggestion()}")
        from umbel.app.app import Umbel

        return Umbel("umbel")

    def names_a_broker(self) -> bool:
        """Tell whether `-b` or the environment says which broker is meant."""
        return any(os.environ.get(f"{prefix}_BROKER_URL") for prefix in ("UMBEL", "CELERY"))

    @property
    def names_an_app(self) -> bool:
        """Tell whether the app is known, and not only a broker."""
        return bool(self.app_name or self.config) or self.given is not None

    def need_app(self, command: str) -> Umbel:
        """Return the app of `-A`; a usage error where a broker alone is not enough."""
        if not self.app_name and self.given is None:
            raise click.UsageError(
                f"{command} needs the app whose tasks it runs: umbel -A proj {command}{_suggestion()}"
            )
        return self.app

    def echo(self, text: str = "", **kwargs: Any) -> None:
        """Print, without colours where `-C` is given."""
        click.echo(text, color=False if self.no_color else None, **kwargs)

    def secho(self, text: str = "", **style: Any) -> None:
        """Print in a style."""
        self.echo(self.style(text, **style))

    def error(self, text: str) -> None:
        """Print to stderr in red."""
        self.echo(self.style(text, fg="red"), err=True)

    def style(self, text: str, **style: Any) -> str:
        """Return text in a style, or as it is where `-C` is given."""
        return text if self.no_color else click.style(text, **style)

    def print_json(self, value: Any) -> None:
        """Print a value as JSON."""
        self.echo(json.dumps(value, default=str, indent=2))


pass_state = click.make_pass_decorator(State, ensure=True)


def printable(text: str) -> str:
    """Return text from outside in a form that cannot steer a terminal."""
    from umbel.app.log_formats import escape

    return escape(text)


def _suggestion() -> str:
    """Name the modules of this folder that make an app."""
    found = []
    for path in sorted(Path.cwd().glob("*.py"))[:50]:
        try:
            if _MAKES_AN_APP.search(path.read_text(encoding="utf-8", errors="replace")):
                found.append(f"-A {path.stem}")
        except OSError:
            continue
    return f"\nHere an app is made in: {', '.join(found)}" if found else ""
