"""Messages on RabbitMQ, results elsewhere: a copy that another worker has just ended does not start."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.app.execution_kit import KitApp
from tests.worker.session_kit import Session
from umbel.core.message import Delivery, Record
from umbel.engine.seam import Lease
from umbel.worker.progress import Progress
from umbel.worker.tickets import packed

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


def test_what_a_worker_put_on_the_shelf_after_it_had_ended_elsewhere_does_not_run(app: Any, wait_until: Wait) -> None:
    """As one does that was frozen when about to put it there."""
    ran: list[str] = []

    @app.task(name="note")
    def note(name: str) -> str:
        ran.append(name)
        return name

    message = app.client.build(note, ("late",), {}, {})
    app.store.put([Record(message.id, "SUCCESS", b'{"status": "SUCCESS", "result": 1}')], time.time())
    owner = uuid.uuid4().hex
    progress = Progress.create(owner, 1)
    delivery = Delivery(**msgspec.structs.asdict(message), token=1, ticket=packed(1, 0, early=True), former_owner=owner)
    assert app.broker.adopt(Lease(("celery",), owner, 1, 0.01), [delivery], time.time())
    with Session(app):
        wait_until(lambda: app.broker.depth(["celery"], time.time())["celery"].leased == 0, what="it to end")
        assert note.delay("other").get(timeout=20) == "other"
    progress.remove()
    assert ran == ["other"]
