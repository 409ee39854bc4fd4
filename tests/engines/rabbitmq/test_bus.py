from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import RabbitServer
from umbel.core.errors import EncodeError, OperationalError
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing import conformance


@pytest.fixture
def engine(rabbit_url: str) -> Iterator[Engine]:
    engine = open_engine(rabbit_url)
    yield engine
    engine.close()


class TestBus(conformance.BusSuite): ...


def test_a_topic_that_amqp_cannot_carry_is_refused(engine: Engine) -> None:
    assert engine.bus is not None
    with pytest.raises(EncodeError, match="255 bytes"):
        engine.bus.send("t" * 256, [b"x"], 0.0)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_listener_hears_again_after_the_server_was_restarted(rabbit_installed: None) -> None:
    with RabbitServer() as server:
        engine = open_engine(server.url)
        assert engine.bus is not None
        listener = engine.bus.listen(["topic"])
        engine.bus.send("topic", [b"before"], 0.0)
        assert listener.receive(10.0) == [("topic", b"before")]
        server.restart()
        heard: list[tuple[str, bytes]] = []
        for _ in range(100):
            try:
                heard += listener.receive(0.1)
                engine.bus.send("topic", [b"after"], 0.0)
            except OperationalError:
                continue
            if heard:
                break
        assert ("topic", b"after") in heard
        listener.close()
        engine.close()
