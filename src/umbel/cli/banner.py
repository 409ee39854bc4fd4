"""What a worker says about itself when it starts."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from umbel.core.urls import mask_url

__all__ = ["banner", "task_list", "version_of_umbel"]


def version_of_umbel() -> str:
    """Return the version of this package."""
    # The parent package is loaded anyway, and reading installed metadata would take a tenth of a worker's start.
    version: str = sys.modules["umbel"].__version__
    return version


def banner(worker: Any, *, logfile: str | None, level: str) -> str:
    """Return the banner of a worker that is about to start; URLs are masked."""
    app, options = worker.app, worker.options
    python = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        f"{options.hostname} · umbel {version_of_umbel()} · {python}",
        platform.platform(),
        "",
        "[config]",
        *_table(
            ("app", f"{app.main or '?'} ({_count(len(app.tasks.own()), 'task')})"),
            # Where a relative path of a SQLite URL begins, and where modules are looked for.
            ("directory", Path.cwd()),
            ("broker", mask_url(app.conf.broker_url)),
            ("durability", _durability(app)),
            ("results", _results(app)),
            ("concurrency", f"{options.concurrency} ({options.pool})"),
            ("log", f"{logfile or 'stderr'}, {level}"),
        ),
        "",
        "[queues]",
        *(_queue(app.amqp.queues[name]) for name in options.queues),
    ]
    return "\n".join(lines) + "\n"


def _table(*rows: tuple[str, object]) -> list[str]:
    return [f"  {name + ':':<13}{text}" for name, text in rows]


def _durability(app: Any) -> str:
    caps = app.engine.caps
    return f"class {caps.durability}, {caps.durability_text}"


def _results(app: Any) -> str:
    if app.store is None:
        return "none are kept"
    if app.engine.replies is not None:
        return "messages to whoever sent the task"
    url = app.conf.result_backend
    if not url or url == app.conf.broker_url:
        return "in the broker's database"
    return mask_url(str(url))


def _queue(queue: Any) -> str:
    exchange = queue.exchange
    route = f"exchange={exchange.name} ({exchange.type}) key={queue.routing_key}" if exchange.name else "no exchange"
    return f"  {queue.name:<16} {route}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def task_list(app: Any, *, builtins: bool) -> str:
    """Return the names of the tasks, those that come with umbel only where `builtins` says so."""
    names = sorted(app.tasks) if builtins else app.tasks.own()
    return "\n".join(["[tasks]", *(f"  . {name}" for name in names)]) + "\n"


def platform_lines() -> list[tuple[str, str]]:
    """Return what a bug report says about the machine."""
    return [
        ("umbel", version_of_umbel()),
        ("python", f"{platform.python_implementation()} {sys.version.split()[0]}"),
        ("platform", platform.platform()),
    ]
