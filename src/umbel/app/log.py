"""Setting up logging: handlers, formats, files, and what tasks print. Celery: `celery.app.log`, `celery.utils.log`."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from logging.handlers import WatchedFileHandler
from typing import Any

from umbel.app import signals
from umbel.app.log_formats import ColorFormatter, ContextFilter, JsonFormatter, TaskFormatter
from umbel.app.nodenames import default_nodename, expand_file_name
from umbel.core.errors import ImproperlyConfigured
from umbel.core.queues import nearest_name

__all__ = [
    "ColorFormatter",
    "Logging",
    "LoggingProxy",
    "TaskFormatter",
    "base_logger",
    "get_logger",
    "get_task_logger",
    "mlevel",
    "process_name",
    "set_process_name",
    "task_logger",
    "worker_logger",
]

base_logger = logging.getLogger("celery")
#: Parent of every logger that `get_task_logger` gives.
task_logger = logging.getLogger("celery.task")
worker_logger = logging.getLogger("celery.worker")

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
_REDIRECTED = "celery.redirected"
#: A longer line is logged in pieces (characters).
_LONGEST = 1 << 16


class _Process:
    """What log lines call this process; a forked child sets its own."""

    name = "MainProcess"
    index = 0


def process_name() -> str:
    """Return what log lines call this process: supervisor, consumer, executor-1 …"""
    return _Process.name


def set_process_name(name: str) -> None:
    """Name this process in log lines; a number at the end of `name` becomes the `%i` of log files, counted from 1."""
    number = re.search(r"\d+$", name)
    _Process.index = int(number[0]) + 1 if number else 0
    _Process.name = re.sub(r"[ -]*\d+$", "", name) + (f"-{_Process.index}" if number else "")
    for handler in _own_handlers():
        if isinstance(handler, ProcessFileHandler):
            handler.reopen(_Process.index)


def mlevel(level: int | str | None) -> int:
    """Return the number of a level: a name in any case, a number, or None for 0 (Celery: `mlevel`)."""
    if isinstance(level, int):
        return level
    if not level:
        return 0
    name = level.upper()
    if name.isdigit():
        return int(name)
    if name not in LEVELS:
        near = nearest_name(name, LEVELS)
        hint = f"did you mean {near}? " if near else ""
        raise ImproperlyConfigured(f"{level!r} is no log level; {hint}there are {', '.join(LEVELS)}")
    return int(getattr(logging, name))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; below `celery` if it has no other parent than root (Celery: `get_logger`)."""
    logger = logging.getLogger(name)
    if logger.parent is logging.root and logger is not base_logger:
        logger.parent = base_logger
    return logger


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for tasks: its records carry `task_id` and `task_name` (Celery: `get_task_logger`)."""
    if name in {base_logger.name, task_logger.name}:
        raise RuntimeError(f"the logger name {name!r} is taken: use __name__")
    logger = get_logger(name)
    ancestor: logging.Logger | None = logger
    while ancestor is not None and ancestor is not task_logger:
        ancestor = ancestor.parent
    if ancestor is None:
        logger.parent = task_logger
    return logger


class ProcessFileHandler(WatchedFileHandler):
    """A log file that may be moved away (logrotate), whose name may hold the process' index."""

    def __init__(self, template: str, node: str) -> None:
        self._template, self._node = template, node
        super().__init__(expand_file_name(template, node, _Process.index), encoding="utf-8", errors="backslashreplace")

    def reopen(self, index: int) -> None:
        """Go on in the file of process number `index`."""
        name = os.path.abspath(expand_file_name(self._template, self._node, index))  # noqa: PTH100 - as logging does
        if name == self.baseFilename:
            return
        self.acquire()
        try:
            self.close()
            self.baseFilename = name
            self.stream = self._open()
            self._statstream()
        finally:
            self.release()


class LoggingProxy:
    """A file-like object that writes lines into a logger (Celery: `celery.utils.log.LoggingProxy`)."""

    mode = "w"
    name: str | None = None
    closed = False
    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, logger: logging.Logger, loglevel: int | str | None = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel) or logger.level
        self._here = threading.local()

    def write(self, data: str | bytes) -> int:
        """Log each whole line that is not empty; what logging itself writes meanwhile is dropped."""
        text = data.decode(errors="backslashreplace") if isinstance(data, bytes) else data
        if not self.closed and not getattr(self._here, "writing", False):
            *lines, rest = (self._held() + text).split("\n")
            self._here.held = rest if len(rest) < _LONGEST else ""
            self._log(lines if len(rest) < _LONGEST else [*lines, rest])
        return len(data)

    def _held(self) -> str:
        """What this thread has written of a line so far; `print` writes a line in pieces."""
        held: str = getattr(self._here, "held", "")
        return held

    def _log(self, lines: list[str]) -> None:
        self._here.writing = True
        try:
            for line in lines:
                if line.strip():
                    self.logger.log(self.loglevel, "%s", line.rstrip())
        finally:
            self._here.writing = False

    def writelines(self, sequence: Iterable[str]) -> None:
        """Write each part."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """Log what this thread has written of a line."""
        if self._held() and not getattr(self._here, "writing", False):
            rest, self._here.held = self._here.held, ""
            self._log([rest])

    def close(self) -> None:
        """Write nothing any more."""
        self.closed = True

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def writable(self) -> bool:
        """It can be written."""
        return True

    def readable(self) -> bool:
        """It cannot be read."""
        return False

    def fileno(self) -> int:
        """The real stderr, for programs that a task starts and for stack dumps; what they write is not logged."""
        if sys.__stderr__ is None:
            raise OSError("this process has no stderr")
        return sys.__stderr__.fileno()


class Logging:
    """Logging of one app (`app.log`). Celery: `celery.app.log.Logging`."""

    #: True once a program of this process has set logging up.
    already_setup = False

    def __init__(self, app: Any) -> None:
        self.app = app

    def setup(
        self,
        loglevel: int | str | None = None,
        logfile: str | None = None,
        redirect_stdouts: bool = False,
        redirect_level: int | str = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up logging and, if asked for, redirect what is printed; return whether handlers were set up here."""
        handled = self.setup_logging_subsystem(loglevel, logfile, colorize=colorize, hostname=hostname)
        if redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        return handled

    def setup_logging_subsystem(
        self,
        loglevel: int | str | None = None,
        logfile: str | None = None,
        format: str | None = None,  # noqa: A002 - Celery's name
        colorize: bool | None = None,
        hostname: str | None = None,
        **kwargs: Any,
    ) -> bool:
        """Set up the root and the task logger, once a process; a receiver of `setup_logging` does it all instead.

        Level 0 is what `-l` leaves out: WARNING. Returns whether handlers were set up here.
        """
        if Logging.already_setup:
            return False
        Logging.already_setup = True
        conf = self.app.conf
        level = mlevel(loglevel) or logging.WARNING
        line_format = format or conf.worker_log_format
        colorize = self.supports_color(colorize, logfile)
        told: dict[str, Any] = {"loglevel": level, "logfile": logfile, "format": line_format, "colorize": colorize}
        if signals.setup_logging.send(sender=None, **told, **kwargs):
            return False
        root = logging.getLogger()
        if conf.worker_hijack_root_logger:
            for logger in (root, base_logger, task_logger, logging.getLogger(_REDIRECTED)):
                logger.handlers = []
        handler = self._handler(logfile, hostname)
        self._add(root, handler, self._formatter(line_format, conf.worker_log_datefmt, colorize=colorize))
        root.setLevel(level)
        signals.after_setup_logger.send(sender=None, logger=root, **told, **kwargs)
        self._setup_task_logger(logfile, hostname, level, colorize=colorize)
        return True

    def _setup_task_logger(self, logfile: str | None, hostname: str | None, level: int, *, colorize: bool) -> None:
        conf = self.app.conf
        formatter = self._formatter(
            conf.worker_task_log_format, conf.worker_task_log_datefmt, colorize=colorize, of_tasks=True
        )
        self._add(task_logger, self._handler(logfile, hostname), formatter)
        task_logger.setLevel(level)
        task_logger.propagate = False
        signals.after_setup_task_logger.send(
            sender=None,
            logger=task_logger,
            loglevel=level,
            logfile=logfile,
            format=conf.worker_task_log_format,
            colorize=colorize,
        )

    def redirect_stdouts(self, loglevel: int | str | None = None, name: str = _REDIRECTED) -> None:
        """Write what this process and its children print with Python into the logger `name`."""
        logger = get_logger(name)
        logger.propagate = True
        sys.stdout = LoggingProxy(logger, loglevel or "WARNING")
        sys.stderr = LoggingProxy(logger, loglevel or "WARNING")

    def supports_color(self, colorize: bool | None = None, logfile: str | None = None) -> bool:
        """Tell whether lines are coloured: as asked, as `worker_log_color` says, else on a terminal only."""
        wanted = self.app.conf.worker_log_color if colorize is None else colorize
        if logfile or wanted is not None:
            return bool(wanted) and not logfile
        return "NO_COLOR" not in os.environ and sys.__stderr__ is not None and sys.__stderr__.isatty()

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        """Return the logger of this name."""
        del kwargs
        return get_logger(name)

    def _handler(self, logfile: str | None, hostname: str | None) -> logging.Handler:
        if logfile:
            try:
                return ProcessFileHandler(logfile, default_nodename(hostname))
            except OSError as error:
                raise ImproperlyConfigured(
                    f"the log file {logfile} cannot be written: {error.strerror}; make its folder or name another"
                ) from error
        return logging.StreamHandler(sys.__stderr__)

    def _formatter(
        self, text: str, datefmt: str | None, *, colorize: bool, of_tasks: bool = False
    ) -> logging.Formatter:
        if self.app.conf.worker_log_json:
            return JsonFormatter()
        try:
            return (TaskFormatter if of_tasks else ColorFormatter)(text, use_color=colorize, datefmt=datefmt)
        except ValueError as error:
            name = "worker_task_log_format" if of_tasks else "worker_log_format"
            raise ImproperlyConfigured(f"{name}: {text!r} is no format of log lines: {error}") from error

    def _add(self, logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
        if logger.handlers:
            return
        handler.addFilter(ContextFilter(process_name))
        handler.setFormatter(formatter)
        logger.addHandler(handler)


def _own_handlers() -> Iterable[logging.Handler]:
    return (*logging.getLogger().handlers, *task_logger.handlers)
