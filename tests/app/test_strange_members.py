"""Members of chords that no chord has: whoever wrote the message, the worker goes on and nobody else is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.app.execution_kit import MiniWorker, make_app
from umbel.app.execution import Report

STRANGE = [("x", "g"), (1.5, "g"), (2**80, "g"), (-1, "g"), (None, "g"), (True, "g"), (0, 7), (0, ["a"]), (0, "\ud800")]


@pytest.mark.parametrize(("index", "group"), STRANGE, ids=ascii)
def test_a_step_that_will_never_run_names_a_place_that_no_chord_has(tmp_path: Path, index: Any, group: Any) -> None:
    app = make_app(tmp_path)

    @app.task(name="kit.fail")
    def fail() -> None:
        raise ValueError("no")

    @app.task(name="kit.add")
    def add(*numbers: int) -> int:
        return sum(numbers)

    worker = MiniWorker(app)
    body = add.s().set(task_id="body")
    step = add.s(1).set(task_id="step", chord=dict(body), group_id=group, group_index=index)
    result = (fail.s() | step).apply_async()
    reports = worker.drain(20)
    assert reports
    assert all(report.parts == () or list(report.parts) == [] for report in reports)
    # As it goes from the executor to its consumer.
    for report in reports:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=Report).number == report.number
    assert app.AsyncResult(result.parent.id if result.parent else result.id).state == "FAILURE"
    app.close()
