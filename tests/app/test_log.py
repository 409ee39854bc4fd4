"""Formats, loggers and redirected output, without a worker."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.app import request as requests
from umbel.app import signals
from umbel.app.app import Umbel
from umbel.app.log import (
    Logging,
    LoggingProxy,
    get_logger,
    get_task_logger,
    mlevel,
    set_process_name,
    task_logger,
)
from umbel.app.log_formats import ColorFormatter, JsonFormatter, TaskFormatter, escape
from umbel.app.nodenames import default_nodename, expand_file_name, gethostname, host_format, nodesplit
from umbel.core.errors import ImproperlyConfigured


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("some.logger", logging.ERROR, "file.py", 1, message, args, None)
    vars(made).update(extra)
    return made


@given(st.text())
def test_escaped_text_holds_no_control_and_no_line_that_begins_at_the_margin(text: str) -> None:
    escaped = escape(text)
    assert all(unicodedata.category(one) not in {"Cc", "Cs", "Zl", "Zp"} for one in escaped if one not in "\t\n")
    assert not set(escaped) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert all(line.startswith("  ") for line in escaped.split("\n")[1:])
    escaped.encode()


@given(st.text(), st.dictionaries(st.text(min_size=1), st.integers() | st.text()))
def test_a_json_line_is_one_line_and_reads_back(text: str, extra: dict[str, object]) -> None:
    line = JsonFormatter().format(record("%s", text, data=extra))
    assert "\n" not in line
    assert line.isascii()
    entry = json.loads(line)
    assert entry["message"] == text
    assert entry["extra"]["data"] == extra


def test_a_json_line_survives_extras_that_json_cannot_hold() -> None:
    loop: dict[object, object] = {(1, 2): {1, 2}}
    loop["self"] = loop
    assert "..." in json.loads(JsonFormatter().format(record("x", data=loop)))["extra"]


def test_a_traceback_is_indented_and_escaped() -> None:
    try:
        raise ValueError("bad\r\n[2030: forged] \x1b[31m")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    text = ColorFormatter("%(message)s", use_color=False).format(made)
    assert "\n  ValueError: bad\\x0d\n  [2030: forged] \\x1b[31m" in text
    assert json.loads(JsonFormatter().format(made))["exception"].startswith("Traceback")


def test_colours_are_by_level_and_only_on_request() -> None:
    assert ColorFormatter("%(message)s").format(record("x")) == "\x1b[31mx\x1b[0m"
    assert ColorFormatter("%(message)s", use_color=False).format(record("x")) == "x"


def test_task_lines_name_the_running_task() -> None:
    app = Umbel("t", broker="memory://", set_as_current=False)

    @app.task(name="t.f")
    def f() -> None: ...

    formatter = TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s", use_color=False)
    assert formatter.format(record("x")) == "???[???]: x"
    token = requests.push(f, requests.Context(id="some-id"))
    try:
        assert formatter.format(record("x")) == "t.f[some-id]: x"
    finally:
        requests.pop(token)


def test_task_loggers_are_below_celery_task() -> None:
    logger = get_task_logger("tests.some.module")
    assert logger.parent is task_logger
    assert get_task_logger("celery.task.inner").parent is task_logger
    assert get_logger("celery.other").parent is logging.getLogger("celery")
    with pytest.raises(RuntimeError, match="is taken"):
        get_task_logger("celery.task")


@pytest.mark.parametrize(
    ("level", "number"), [("info", 20), ("WARNING", 30), ("fatal", 50), (10, 10), (None, 0), ("15", 15)]
)
def test_levels_are_read_in_any_case(level: str | int | None, number: int) -> None:
    assert mlevel(level) == number


def test_a_wrong_level_is_answered_with_the_nearest() -> None:
    with pytest.raises(ImproperlyConfigured, match="did you mean DEBUG"):
        mlevel("debugg")


def test_redirected_output_is_logged_by_whole_lines(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.redirected")
    proxy = LoggingProxy(logger, "WARNING")
    print("one", "line", file=proxy)
    print("two\nlines\n\n", file=proxy)
    proxy.write("held")
    assert [entry.getMessage() for entry in caplog.records] == ["one line", "two", "lines"]
    proxy.flush()
    assert caplog.records[-1].getMessage() == "held"
    assert not proxy.isatty()


def test_what_logging_prints_about_a_redirected_line_is_no_endless_loop() -> None:
    logger = logging.getLogger("tests.loop")
    proxy = LoggingProxy(logger, "WARNING")
    handler = logging.StreamHandler(proxy)
    logger.addHandler(handler)
    try:
        print("x", file=proxy)
    finally:
        logger.removeHandler(handler)


# --- setting up ---------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> Iterator[Umbel]:
    root = logging.getLogger()
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in (root, task_logger)]
    streams = sys.stdout, sys.stderr
    Logging.already_setup = False
    yield Umbel("logged", broker="memory://", set_as_current=False)
    Logging.already_setup = False
    set_process_name("MainProcess")
    sys.stdout, sys.stderr = streams
    for logger, handlers, level, propagate in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_receiver_of_setup_logging_does_it_all(app: Umbel) -> None:
    told = []

    def receiver(**named: object) -> None:
        told.append(named)

    signals.setup_logging.connect(receiver)
    try:
        assert not Logging(app).setup("info")
    finally:
        signals.setup_logging.disconnect(receiver)
    assert told[0]["loglevel"] == logging.INFO
    assert not task_logger.handlers


def test_the_signals_after_setup_are_told_the_loggers(app: Umbel) -> None:
    told = []

    def receiver(logger: logging.Logger, **_: object) -> None:
        told.append(logger)

    signals.after_setup_logger.connect(receiver)
    signals.after_setup_task_logger.connect(receiver)
    try:
        assert Logging(app).setup("info")
        assert not Logging(app).setup("debug"), "only the first counts"
    finally:
        signals.after_setup_logger.disconnect(receiver)
        signals.after_setup_task_logger.disconnect(receiver)
    assert told == [logging.getLogger(), task_logger]
    assert not task_logger.propagate


def test_handlers_of_the_root_logger_stay_where_it_is_not_to_be_hijacked(app: Umbel) -> None:
    mine = logging.NullHandler()
    root = logging.getLogger()
    root.handlers = [mine]
    app.conf.worker_hijack_root_logger = False
    Logging(app).setup("info")
    assert root.handlers == [mine]


def test_each_process_may_have_a_file_of_its_own(app: Umbel, tmp_path: Path) -> None:
    Logging(app).setup("info", logfile=f"{tmp_path}/%n%I.log", hostname="w1@host", redirect_stdouts=True)
    logging.getLogger("x").info("from the first")
    set_process_name("executor 1")
    print("printed")
    assert "INFO/MainProcess] from the first" in (tmp_path / "w1.log").read_text()
    assert "WARNING/executor-2] printed" in (tmp_path / "w1-2.log").read_text()


def test_a_wrong_format_names_the_setting(app: Umbel) -> None:
    app.conf.worker_log_format = "%(message"
    with pytest.raises(ImproperlyConfigured, match="worker_log_format"):
        Logging(app).setup("info")


# --- names of nodes -----------------------------------------------------------------------------------------


def test_node_names_are_completed() -> None:
    assert default_nodename(None) == f"umbel@{gethostname()}"
    assert default_nodename("w1@") == f"w1@{gethostname()}"
    assert default_nodename("box") == "umbel@box"
    assert nodesplit("a@b") == ("a", "b")


def test_names_are_expanded() -> None:
    assert host_format("w@%h|%n|%d|%%", "box.example.org") == "w@box.example.org|box|example.org|%"
    assert expand_file_name("%n-%h-%i%I.log", "w1@box.org", 0) == "w1-box.org-0.log"
    assert expand_file_name("%p%I.log", "w1@box", 3) == "w1@box-3.log"
    with pytest.raises(ImproperlyConfigured, match="%z, which means nothing"):
        host_format("%z")
