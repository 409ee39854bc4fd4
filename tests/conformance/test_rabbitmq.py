from __future__ import annotations

from collections.abc import Iterator

import pytest

from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.testing import conformance


@pytest.fixture
def engine(rabbit_url: str) -> Iterator[Engine]:
    engine = open_engine(rabbit_url)
    yield engine
    engine.close()


class TestBroker(conformance.BrokerSuite): ...
