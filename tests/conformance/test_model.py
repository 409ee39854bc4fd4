from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing.conformance_model import EngineMachine


@contextmanager
def machine(url: str) -> Iterator[type[EngineMachine]]:
    with tempfile.TemporaryDirectory() as folder:
        opened = 0

        def fresh() -> Engine:
            nonlocal opened
            opened += 1
            return open_engine(url.format(file=Path(folder, f"{opened}.db")))

        class Machine(EngineMachine):
            open: ClassVar[Callable[[], Engine]] = staticmethod(fresh)

        yield Machine


@pytest.mark.parametrize(("url", "examples"), [("memory://", 150), ("sqlite:///{file}", 40)])
def test_an_engine_answers_random_calls_as_the_model_does(url: str, examples: int) -> None:
    checks = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with machine(url) as kind:
        run_state_machine_as_test(kind, settings=checks)
