from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.servers import RabbitServer
from umbel.core.errors import OperationalError
from umbel.core.message import End
from umbel.core.queues import Queue
from umbel.engine.registry import open_engine
from umbel.engine.seam import Broker, Lease
from umbel.testing.conformance import message
from umbel.testing.conformance_parts import done

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(rabbit_installed: None) -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture
def broker(server: RabbitServer) -> Iterator[Broker]:
    engine = open_engine(server.url, {"read_timeout": 1})
    assert engine.broker is not None
    engine.broker.declare([Queue("q")])
    engine.broker.purge(["q"])
    yield engine.broker
    engine.close()


def alarm(server: RabbitServer, on: bool) -> None:
    server.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.0000001' if on else '0.9'}).")
    wanted = "[]" if not on else "memory"
    deadline = time.monotonic() + 20
    while wanted not in str(server.evaluate("rabbit_alarm:get_alarms().")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def count(broker: Broker) -> int:
    return broker.depth(["q"], time.time())["q"].ready


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_batch_that_an_alarm_holds_up_is_stored_once_when_it_is_repeated(
    server: RabbitServer, broker: Broker, size: int
) -> None:
    batch = [message(f"m{number}") for number in range(20)]
    for each in batch:
        each.body = b'["%s"]' % (b"x" * size)
    alarm(server, on=True)
    try:
        for _ in range(2):
            with pytest.raises(OperationalError, match="alarm"):
                broker.publish(batch, time.time())
    finally:
        alarm(server, on=False)
    assert broker.publish(batch, time.time()) == []
    assert count(broker) == 20


def test_what_an_alarm_holds_up_and_nobody_repeats_keeps_no_connection_open(server: RabbitServer) -> None:
    engine = open_engine(server.url, {"read_timeout": 0.5})
    assert engine.broker is not None
    engine.broker.declare([Queue("q")])
    alarm(server, on=True)
    try:
        for name in ("a", "b"):
            with pytest.raises(OperationalError, match="alarm"):
                engine.broker.publish([message(name)], time.time())
    finally:
        alarm(server, on=False)
    engine.close()
    deadline = time.monotonic() + 10
    while server.evaluate("length([C || C <- rabbit_networking:connections()]).") != "0":
        assert time.monotonic() < deadline, "connections are left open"
        time.sleep(0.05)


def test_a_copy_that_an_alarm_holds_up_is_stored_once_when_it_is_repeated(server: RabbitServer, broker: Broker) -> None:
    assert broker.publish([message("m")], time.time()) == []
    (got,) = broker.lease(Lease(("q",), "me", 1, 30.0), time.time(), 5.0)
    back = [done(got, end=End.CRASHED)]
    alarm(server, on=True)
    try:
        with pytest.raises(OperationalError, match="alarm"):
            broker.settle("me", back, time.time())
    finally:
        alarm(server, on=False)
    assert broker.settle("me", back, time.time()) == []
    (again,) = broker.lease(Lease(("q",), "me", 5, 30.0), time.time(), 5.0)
    assert (again.id, again.crashes) == ("m", 1)
    assert broker.settle("me", [done(again)], time.time()) == []
    assert count(broker) == 0
