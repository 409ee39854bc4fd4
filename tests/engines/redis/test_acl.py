"""A user with no more rights than the error about missing rights asks for is enough for everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.servers import RedisServer
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing import conformance
from umbel.testing.conformance_parts import NOW, QUEUES


@pytest.fixture(scope="module")
def server(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        rights = "+@all -@admin -@dangerous +client|id +client|unblock +client|setname +info ~app:* &app:*"
        server.ask("ACL", "SETUSER", "narrow", "on", ">pw", *rights.split())
        yield server


@pytest.fixture
def engine(server: RedisServer) -> Iterator[Engine]:
    server.ask("FLUSHALL")
    url = f"redis://narrow:pw@127.0.0.1:{server.port}/0?global_keyprefix=app:&client_name=umbel"
    engine = open_engine(url)
    assert engine.broker is not None
    engine.broker.lease(Lease(QUEUES, "a worker", 0, 3600.0), NOW)  # with a worker alive delays are kept by the engine
    yield replace(engine, caps=replace(engine.caps, clock="caller"))
    engine.close()


class TestBroker(conformance.BrokerSuite): ...


class TestStore(conformance.StoreSuite): ...


class TestAtomic(conformance.AtomicSuite): ...


class TestBus(conformance.BusSuite): ...


class TestJoin(conformance.JoinSuite): ...


class TestDead(conformance.DeadLetterSuite): ...
