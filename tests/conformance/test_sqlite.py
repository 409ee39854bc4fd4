from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing import conformance


@pytest.fixture(params=["normal", "full"])
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/tasks.db?synchronous={request.param}")
    yield engine
    engine.close()


class TestBroker(conformance.BrokerSuite): ...


class TestDeadLetters(conformance.DeadLetterSuite): ...


class TestStore(conformance.StoreSuite): ...


class TestAtomic(conformance.AtomicSuite): ...


class TestBus(conformance.BusSuite): ...


class TestJoin(conformance.JoinSuite): ...


class TestAtomicJoin(conformance.AtomicJoinSuite): ...


class TestPlans(conformance.PlanSuite): ...


class TestShelf(conformance.ShelfSuite): ...


class TestDeadOwner(conformance.DeadOwnerSuite): ...
