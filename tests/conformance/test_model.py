from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing.conformance_model import EngineMachine


def check(fresh: Callable[[], Engine], examples: int) -> None:
    """Let hypothesis run random calls on engines that `fresh` opens, each of them empty."""

    class Machine(EngineMachine):
        open: ClassVar[Callable[[], Engine]] = staticmethod(fresh)

    checks = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Machine, settings=checks)


def test_memory_answers_random_calls_as_the_model_does() -> None:
    check(lambda: open_engine("memory://"), 150)


def test_sqlite_answers_random_calls_as_the_model_does(tmp_path: Path) -> None:
    numbers = itertools.count()
    check(lambda: open_engine(f"sqlite:///{tmp_path}/{next(numbers)}.db"), 40)
