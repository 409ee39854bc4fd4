"""Write docs/reference/{api,signals,states,errors}.md from signatures and docstrings; `--check` only compares."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import umbel
from umbel.app import signals
from umbel.app.control import Control, Inspect
from umbel.app.lifecycle import Lifecycle
from umbel.app.signals import Signal
from umbel.core import errors, states

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
NOTE = "This page is written by `scripts/gen_api_reference.py` from signatures and docstrings.\n"

#: Signal → when it is sent and in which process.
WHEN = {
    "before_task_publish": "a message is about to be stored; what receivers change in it counts (caller)",
    "after_task_publish": "a message has been stored (caller)",
    "task_sent": "the same, in the form of old Celery programs (caller)",
    "task_received": "a worker took a message (consumer)",
    "task_prerun": "a task is about to run (executor)",
    "task_postrun": "a task has run, however it ended (executor)",
    "task_success": "a task returned (executor)",
    "task_retry": "a task is tried again (executor)",
    "task_failure": "a task failed, or its process was lost (executor)",
    "task_internal_error": "umbel itself failed around a task (executor)",
    "task_revoked": "a task was revoked, had expired, or was terminated (executor)",
    "task_rejected": "a message could not be read and is a dead letter (executor)",
    "task_unknown": "no worker knew the task of a message, which is a dead letter (executor)",
    "import_modules": "task modules are imported; what receivers raise is raised",
    "celeryd_init": "a worker is being made (supervisor)",
    "celeryd_after_setup": "its queues and its logging are set up (supervisor)",
    "worker_init": "it is about to start (supervisor)",
    "worker_before_create_process": "a process is about to be forked (supervisor)",
    "worker_process_init": "an executor has started (executor)",
    "worker_process_shutdown": "an executor ends (executor)",
    "worker_ready": "the worker takes messages (supervisor)",
    "heartbeat_sent": "the leases of this worker were extended (consumer)",
    "worker_shutting_down": "a worker was told to stop (supervisor)",
    "worker_shutdown": "it has stopped (supervisor)",
    "setup_logging": "logging is set up; with a receiver umbel leaves it alone",
    "after_setup_logger": "the root logger is set up",
    "after_setup_task_logger": "the logger of tasks is set up",
    "user_preload_options": "the command line was read",
}


#: Arguments that the code gathers before it sends them.
GATHERED = {
    "before_task_publish": ["body", "exchange", "headers", "routing_key"],
    "after_task_publish": ["body", "exchange", "headers", "routing_key"],
    "setup_logging": ["colorize", "format", "logfile", "loglevel"],
    "after_setup_logger": ["colorize", "format", "logfile", "loglevel"],
}


def first_paragraph(thing: Any) -> str:
    """Return the beginning of a docstring on one line."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(text.split())


def signature_of(thing: Any) -> str:
    """Return the parameters as text, without types."""
    parameters = list(inspect.signature(thing).parameters.values())
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in parameters
        if parameter.name not in ("self", "cls")
    ]
    text = str(inspect.Signature(bare))
    return re.sub(r"<([\w.]+) object at 0x[0-9a-f]+>", r"<\1>", text)


def members_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class and its own bases define."""
    for name in sorted({name for base in cls.__mro__ if base.__module__.startswith("umbel") for name in vars(base)}):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, (property, staticmethod, classmethod)) or inspect.isfunction(member):
            yield name, member


def member_line(name: str, member: Any) -> str:
    """Return the entry of a method or a property."""
    if isinstance(member, property):
        return f"- `{name}`: {first_paragraph(member)}"
    function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    prefix = "await " if inspect.iscoroutinefunction(function) else ""
    return f"- `{prefix}{name}{signature_of(function)}`: {first_paragraph(function)}"


def api_page() -> str:
    """Return the page of the public names."""
    lines = ["# API", "", NOTE, "What `from umbel import …` gives. [Settings](settings.md), [commands](cli.md).", ""]
    shown: list[tuple[str, Any]] = [(name, getattr(umbel, name)) for name in umbel.__all__]
    shown += [("app.control", Control), ("app.control.inspect()", Inspect)]
    for name, thing in shown:
        if name.startswith("__") or name == "Celery":
            continue
        lines += [f"## {name}", ""]
        if inspect.isclass(thing):
            lines += [f"`{name}{signature_of(thing.__init__)}`" if "." not in name else "", ""]
            lines += [first_paragraph(thing), "", *(member_line(*member) for member in members_of(thing)), ""]
        elif inspect.isfunction(thing):
            lines += [f"`{name}{signature_of(thing)}`", "", first_paragraph(thing), ""]
        else:
            lines += [OBJECTS[name], ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


#: What the public names are that are no classes or functions.
OBJECTS = {
    "current_app": "The current app, whichever that is at the moment of use.",
    "current_task": "The task that runs here; false outside tasks.",
    "uuid": "`uuid()`: a new task id, a UUIDv7 as text.",
}


def sends() -> dict[str, set[str]]:
    """Return for each signal that the code sends the names of its arguments."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src" / "umbel").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "send":
                name = ast.unparse(node.func.value).rpartition(".")[2]
                if isinstance(vars(signals).get(name), Signal):
                    named = {keyword.arg or "…" for keyword in node.keywords}
                    found.setdefault(name, set()).update(named - {"sender"})
    return found


def signals_page() -> str:
    """Return the page of the signals."""
    sent = sends()
    lines = [
        "# Signals", "", NOTE,
        "Connect with `@signal.connect` or `signal.connect(receiver, sender=…)`; receivers take `**kwargs` and get",
        "`signal` and `sender` besides the arguments below. What they raise is logged and goes no further. Names are",
        "importable from `umbel.celery.signals`. A signal that nobody listens to costs nothing.", "",
        "| signal | sent when | arguments |", "|---|---|---|",
    ]  # fmt: skip
    for name in (name for name in signals.__all__ if name in sent):
        given = sorted({*sent[name], *GATHERED.get(name, [])} - {"…"})
        arguments = ", ".join(f"`{argument}`" for argument in given)
        lines.append(f"| `{name}` | {WHEN[name]} | {arguments} |")
    never = [name for name in signals.__all__ if isinstance(vars(signals)[name], Signal) and name not in sent]
    lines += ["", "Importable, so that programs written for Celery start, and not sent by umbel yet:", ""]
    lines += [", ".join(f"`{name}`" for name in never) + ".", ""]
    lines += [
        "An app has four of its own: `on_configure`, `on_after_configure` (with `source`), `on_after_finalize` and"
    ]
    lines += ["`on_after_fork`, each with the app as sender.", ""]
    return "\n".join(lines)


def comments_of(module: str, names: list[str]) -> dict[str, str]:
    """Return the `#:` comments that stand above names of a module."""
    found: dict[str, str] = {}
    pending: list[str] = []
    for line in inspect.getsource(importlib.import_module(module)).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            pending.append(text.removeprefix("#:").strip())
            continue
        name = text.partition(" = ")[0].partition(":")[0]
        if pending and name in names:
            found[name] = " ".join(pending)
        pending = []
    return found


def states_page() -> str:
    """Return the page of states."""
    lines = ["# States", "", NOTE, "`result.state`, strongest first; names and precedence are Celery's.", ""]
    lines += ["| state | final | `get()` raises |", "|---|---|---|"]
    for state in states.PRECEDENCE:
        name = f"`{state}`" if state else "a custom state"
        final, raises = state in states.READY_STATES, state in states.PROPAGATE_STATES
        lines.append(f"| {name} | {'yes' if final else ''} | {'yes' if raises else ''} |")
    lines += [
        "",
        "A final state never changes. `EXPIRED` is told of an id which is older than `result_expires` and which",
    ]
    lines += ["nobody knows any more; `PENDING` is everything else that nobody knows, as in Celery.", ""]
    lines += [
        "## Lifecycle",
        "",
        "`result.lifecycle` asks broker and store together.",
        "",
        "| value | meaning |",
        "|---|---|",
    ]
    notes = comments_of("umbel.app.lifecycle", [entry.name for entry in Lifecycle])
    lines += [f"| `{entry.value}` | {notes.get(entry.name, 'as the stored state says')} |" for entry in Lifecycle]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Return the page of errors and warnings."""
    lines = [
        "# Errors",
        "",
        NOTE,
        "Importable from `umbel.core.errors`; Celery's names from `umbel.celery.exceptions`.",
        "",
    ]
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    lines += ["```text", tree, "```", "", "| name | kind of | meaning |", "|---|---|---|"]
    for name in errors.__all__:
        thing = vars(errors)[name]
        if inspect.isclass(thing) and thing.__name__ == name:
            bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
            lines.append(f"| `{name}` | {bases} | {first_paragraph(thing)} |")
    return "\n".join(lines) + "\n"


PAGES = {"api.md": api_page, "signals.md": signals_page, "states.md": states_page, "errors.md": errors_page}


def main(argv: list[str]) -> int:
    """Write or check the pages; return the exit status."""
    stale = []
    for name, render in PAGES.items():
        text, page = render(), FOLDER / name
        if "--check" not in argv:
            page.write_text(text, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"{', '.join(stale)} out of date: run python scripts/gen_api_reference.py", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
