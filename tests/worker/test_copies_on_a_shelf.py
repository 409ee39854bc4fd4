"""Messages on RabbitMQ, results elsewhere: a copy that another worker has just ended does not start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.app.execution_kit import KitApp
from tests.worker.session_kit import Session
from umbel.core.message import Delivery, Record

Wait = Callable[..., None]


@pytest.fixture(params=["redis", "sqlite"])
def app(request: pytest.FixtureRequest, rabbit_url: str, tmp_path: Path) -> Iterator[Any]:
    results = request.getfixturevalue("redis_url") if request.param == "redis" else f"sqlite:///{tmp_path}/results.db"
    made = KitApp("kit", set_as_current=False, broker=rabbit_url, backend=results)
    yield made
    made.close()


@pytest.mark.parametrize("late", [False, True])
def test_a_copy_whose_task_ends_between_its_arrival_and_its_start_does_not_run(
    app: Any, late: bool, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    @app.task(name="note", acks_late=late)
    def note(name: str) -> str:
        ran.append(name)
        return name

    message = app.client.build(note, ("copy",), {}, {})
    copy = Delivery(**msgspec.structs.asdict(message), doubtful=True)

    start = app.broker.start

    def ended_elsewhere(*args: Any) -> Any:
        app.store.put([Record(copy.id, "SUCCESS", b'{"status": "SUCCESS", "result": 1}')], time.time())
        return start(*args)

    monkeypatch.setattr(app.broker, "start", ended_elsewhere)
    assert app.broker.publish([copy], time.time()) == []
    other = note.delay("other")
    with Session(app):
        assert other.get(timeout=20) == "other"
        wait_until(lambda: app.broker.depth(["celery"], time.time())["celery"].leased == 0, what="all to end")
    assert ran == ["other"]
