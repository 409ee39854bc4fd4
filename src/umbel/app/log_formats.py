"""How a log record becomes text or a line of JSON, so that nothing inside it can pass for another record."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from umbel.app import request as requests

__all__ = ["ColorFormatter", "ContextFilter", "JsonFormatter", "TaskFormatter", "escape"]

#: Control characters (but tab and line feed), line and paragraph separators, and what turns the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\n")
#: What continuation lines begin with.
_INDENT = "  "
_RESET = "\x1b[0m"
_COLORS: Mapping[int, str] = {
    logging.DEBUG: "\x1b[34m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[35m",
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "task_id", "task_name"}


def escape(text: str) -> str:
    r"""Return `text` with control and bidi characters as `\x..`; lines after the first are indented.

    A record therefore begins at the start of a line, and only a record does.
    """
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\n":
        return "\n" + _INDENT
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class ContextFilter(logging.Filter):
    """Writes into each record which process made it and for which task: `processName`, `task_id`, `task_name`."""

    def __init__(self, process_name: Callable[[], str]) -> None:
        super().__init__()
        self._process_name = process_name

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record; keep it."""
        record.processName = self._process_name()
        add_task(record)
        return True


def add_task(record: logging.LogRecord) -> None:
    """Set `task_id` and `task_name` to those of the running task where the record does not say itself."""
    values = vars(record)
    if "task_id" in values and "task_name" in values:
        return
    frame = requests.top()
    values.setdefault("task_id", None if frame is None else frame.request.id)
    values.setdefault("task_name", None if frame is None else frame.task.name)


class ColorFormatter(logging.Formatter):
    """Text lines, coloured by level on request. Celery: `celery.utils.log.ColorFormatter`."""

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line with an escaped message."""
        record.message = escape(record.message.rstrip("\n"))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback, indented."""
        return _INDENT + escape(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return the stack, indented."""
        return _INDENT + escape(super().formatStack(stack_info))

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole text of a record."""
        # Other formatters keep their own form of the exception in the record.
        record.exc_text = None
        text = super().format(record)
        record.exc_text = None
        color = _COLORS.get(record.levelno) if self.use_color else None
        return f"{color}{text}{_RESET}" if color else text


class TaskFormatter(ColorFormatter):
    """Text lines that may name the task: `%(task_id)s`, `%(task_name)s`. Celery: `celery.app.log.TaskFormatter`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole text of a record."""
        add_task(record)
        for name in ("task_id", "task_name"):
            if getattr(record, name) is None:
                setattr(record, name, "???")
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, process, pid, message; task, exception and extras if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole text of a record."""
        add_task(record)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for name in ("task_id", "task_name"):
            if getattr(record, name) not in (None, "???"):
                entry[name] = getattr(record, name)
        if record.exc_info:
            entry["exception"] = super().formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if extra:
            entry["extra"] = extra
        return _dumps(entry)


def _dumps(entry: dict[str, Any]) -> str:
    try:
        return json.dumps(entry, default=str)
    except (TypeError, ValueError):
        # Keys that are no text, or a value that holds itself.
        return json.dumps({**entry, "extra": str(entry.get("extra"))}, default=str)
