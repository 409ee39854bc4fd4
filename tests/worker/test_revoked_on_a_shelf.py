"""Messages on RabbitMQ, results on Redis: whether something is revoked is seen by the step that starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.app.execution_kit import KitApp
from tests.worker.session_kit import Session

Wait = Callable[..., None]


@pytest.fixture
def app(rabbit_url: str, redis_url: str) -> Iterator[Any]:
    made = KitApp("kit", set_as_current=False, broker=rabbit_url, backend=redis_url)
    yield made
    made.close()


@pytest.mark.parametrize("late", [False, True])
def test_what_is_revoked_while_it_waits_does_not_run_and_its_neighbours_do(app: Any, late: bool) -> None:
    ran: list[int] = []

    @app.task(name="note", acks_late=late)
    def note(number: int) -> int:
        ran.append(number)
        return number

    sent = [note.delay(number) for number in range(6)]
    stamped = note.apply_async((6,), stamped_headers=["tenant"], tenant="a")
    for number in (0, 3, 5):
        app.control.revoke(sent[number].id)
    app.control.revoke_by_stamped_headers({"tenant": "a"})
    with Session(app):
        assert [sent[number].get(timeout=20) for number in (1, 2, 4)] == [1, 2, 4]
        ended = [sent[number].get(timeout=20, propagate=False) for number in (0, 3, 5)]
        stamped.get(timeout=20, propagate=False)
        assert [type(one).__name__ for one in ended] == ["TaskRevokedError"] * 3
    assert {one.state for one in (sent[0], sent[3], sent[5], stamped)} == {"REVOKED"}
    assert sorted(ran) == [1, 2, 4]


def test_nobody_asks_for_revocations_while_there_are_none(app: Any, redis_url: str) -> None:
    @app.task(name="note")
    def note(number: int) -> int:
        return number

    with Session(app), redis.Redis.from_url(redis_url) as raw:
        before = asked(raw)
        assert [note.delay(number).get(timeout=20) for number in range(5)] == list(range(5))
        assert asked(raw) == before


def asked(raw: Any) -> int:
    return int(raw.info("commandstats").get("cmdstat_zmscore", {}).get("calls", 0))
