from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.servers import RedisServer
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing.conformance_groups import GroupMachine


def check(fresh: Callable[[], Engine], examples: int) -> None:
    """Let hypothesis live the lives of groups in engines that `fresh` opens, each of them empty."""

    class Machine(GroupMachine):
        open: ClassVar[Callable[[], Engine]] = staticmethod(fresh)

    checks = settings(
        max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Machine, settings=checks)


def test_memory_joins_groups_as_the_pure_join_does() -> None:
    check(lambda: open_engine("memory://"), 120)


def test_sqlite_joins_groups_as_the_pure_join_does(tmp_path: Path) -> None:
    numbers = itertools.count()
    check(lambda: open_engine(f"sqlite:///{tmp_path}/{next(numbers)}.db"), 40)


def test_redis_joins_groups_as_the_pure_join_does(redis_server: RedisServer) -> None:
    numbers = itertools.count()

    def fresh() -> Engine:
        engine = open_engine(redis_server.fresh_url(), {"global_keyprefix": f"{next(numbers)}-"})
        return replace(engine, caps=replace(engine.caps, clock="caller"))

    check(fresh, 60)
