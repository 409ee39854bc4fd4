"""The watchdog reconnects when messages wait in vain; known dead sessions are taken over from at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from umbel import Umbel
from umbel.core.message import Delivery
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.seam import Lease
from umbel.testing.clock import ManualClock
from umbel.worker.heartbeat import Heartbeat
from umbel.worker.progress import Progress
from umbel.worker.watchdog import Watchdog


@pytest.fixture
def app() -> Iterator[Umbel]:
    app = Umbel("kit", set_as_current=False, broker="memory://")
    yield app
    app.close()


class Scene:
    """A watchdog over a real queue, beside a feeder that gets nothing."""

    def __init__(self, app: Umbel) -> None:
        self.clock = ManualClock(time.time())
        self.woken = self.closed = 0
        self.feeder: Any = SimpleNamespace(
            takes_all=True, leased_at=0.0, lease=Lease(("celery",), "o", 1, 30.0), wake=self._wake
        )
        broker: Any = SimpleNamespace(depth=app.broker.depth, close=self._close)
        self.watchdog = Watchdog(broker, self.feeder, self.clock, patience=10.0)

    def _wake(self) -> None:
        self.woken += 1

    def _close(self) -> None:
        self.closed += 1

    def look(self, seconds: float) -> int:
        self.clock.advance(seconds)
        self.watchdog.look()
        return self.closed


def test_messages_that_wait_in_vain_twice_make_the_connection_anew(
    app: Umbel, caplog: pytest.LogCaptureFixture
) -> None:
    app.send_task("x")
    scene = Scene(app)
    assert scene.look(5) == 0
    assert scene.look(6) == 0
    with caplog.at_level(logging.ERROR):
        assert scene.look(10) == 1
    assert scene.woken == 1
    assert "1 messages are ready and executors are free" in caplog.text
    assert scene.look(10) == 1
    assert scene.look(10) == 2


def test_nothing_happens_where_nothing_waits_or_something_comes(app: Umbel) -> None:
    scene = Scene(app)
    assert [scene.look(20) for _ in range(3)] == [0, 0, 0]
    app.send_task("x")
    scene.look(20)
    scene.feeder.leased_at = scene.clock.monotonic()
    assert [scene.look(9), scene.look(2)] == [0, 0]
    scene.feeder.takes_all = False
    assert scene.look(20) == 0
    scene.feeder.takes_all = True
    assert scene.look(20) == 0
    assert scene.look(20) == 1


def test_what_a_session_known_to_be_dead_held_comes_back_at_once(app: Umbel) -> None:
    app.send_task("x")
    assert app.broker.lease(Lease(("celery",), "buried", 1, 600.0), time.time())
    found: list[Delivery] = []
    progress = Progress.create("heir", 1)
    progress.remove()
    heartbeat = Heartbeat(
        app.broker,
        None,
        Lease(("celery",), "heir", 0, 30.0),
        SYSTEM_CLOCK,
        progress,
        interval=60.0,
        recovered=found.extend,
        lost=lambda: pytest.fail("the lease was lost"),
        dead=("buried",),
    )
    heartbeat.stop()
    heartbeat.start()
    assert heartbeat.join(10)
    assert [(item.task, item.former_owner) for item in found] == [("x", "buried")]
