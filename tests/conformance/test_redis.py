from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing import conformance
from umbel.testing.conformance_parts import NOW, QUEUES


@pytest.fixture(params=["", "team-"], ids=["plain", "prefix"])
def engine(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    options = {"global_keyprefix": request.param} if request.param else {}
    engine = open_engine(redis_url, options)
    # Delays are kept by the engine where one of its workers is alive; to others they are sent as Celery sends them.
    assert engine.broker is not None
    engine.broker.lease(Lease(QUEUES, "a worker", 0, 3600.0), NOW)
    # Redis' own clock counts, but a time that is far from the real one is believed: the suite turns its clock by hand.
    yield replace(engine, caps=replace(engine.caps, clock="caller"))
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
