from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing import conformance


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine("memory://")
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
