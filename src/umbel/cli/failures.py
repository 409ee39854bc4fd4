"""From an error to what the command says about it and the status it exits with."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import click

from umbel.core.errors import OperationalError, UmbelError
from umbel.core.urls import mask_text

__all__ = ["EX_CANTCREAT", "EX_FAILURE", "EX_UNAVAILABLE", "EX_USAGE", "Unavailable", "run", "said", "status_of"]

EX_FAILURE = 1
EX_USAGE = 2
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73


class Unavailable(click.ClickException):
    """Nobody answered."""

    exit_code = EX_UNAVAILABLE


def run(call: Callable[[], Any], *, debug: Callable[[], bool]) -> int:
    """Carry out a command and return the exit status; errors of umbel are one line, with `debug` a traceback too."""
    try:
        status = call()
    except click.ClickException as error:
        if debug():
            traceback.print_exc()
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Aborted!", err=True)
        return EX_FAILURE
    except UmbelError as error:
        if debug():
            traceback.print_exc()
        click.echo(f"Error: {said(error)}", err=True)
        return status_of(error)
    return status if isinstance(status, int) and not isinstance(status, bool) else 0


def said(error: UmbelError) -> str:
    """Return what an error says, without secrets; for one that says nothing, its name."""
    return mask_text(str(error)) or type(error).__name__


def status_of(error: UmbelError) -> int:
    """Return the exit status for an error."""
    if isinstance(error, OperationalError):
        return EX_UNAVAILABLE
    return EX_USAGE if type(error).__name__ == "AppNotFound" else EX_FAILURE
