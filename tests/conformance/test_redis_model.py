from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.servers import RedisServer
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_model import EngineMachine


def test_redis_answers_random_calls_as_the_model_does(redis_server: RedisServer) -> None:
    opened = 0

    def fresh() -> Engine:
        nonlocal opened
        opened += 1
        engine = open_engine(redis_server.fresh_url(), {"global_keyprefix": f"{opened}-"})
        assert engine.broker is not None
        # Delays are kept here because a worker is alive that knows of them.
        engine.broker.lease(Lease(("q",), "a worker", 0, 10.0**6), 1_700_000_000.0)
        return replace(engine, caps=replace(engine.caps, clock="caller"))

    class Machine(EngineMachine):
        open: ClassVar[Callable[[], Engine]] = staticmethod(fresh)

    checks = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=checks)
