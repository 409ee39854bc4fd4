"""What a worker would put aside, or nobody could store, is refused where it is sent; nothing else is harmed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.process.checker import Rules
from tests.process.lab import Lab
from umbel import Exchange, Queue
from umbel.core.errors import EncodeError, OperationalError

pytestmark = pytest.mark.timeout(60)

REFUSED: dict[str, Callable[[Lab], Any]] = {
    "an argument of 100 MiB": lambda lab: lab.app.tasks["lab.work"].delay("x" * (100 << 20)),
    "a header of 200 kB": lambda lab: lab.app.tasks["lab.work"].apply_async(headers={"more": "x" * 200_000}),
    "an id of 200 kB": lambda lab: lab.app.tasks["lab.work"].apply_async(task_id="x" * 200_000),
    "an id with a line break": lambda lab: lab.app.tasks["lab.work"].apply_async(task_id="a\r\nERROR forged"),
    "a name of 200 kB": lambda lab: lab.app.send_task("n" * 200_000),
}


def test_what_no_worker_would_take_is_refused_where_it_is_sent(broker_lab: Lab) -> None:
    lab = broker_lab
    lab.send("lab.work", 0.0)
    for call in REFUSED.values():
        began = time.process_time()
        with pytest.raises(EncodeError, match="limit|take|must have at most") as raised:
            call(lab)
        assert time.process_time() - began < 5
        assert len(str(raised.value)) < 500
        lab.send("lab.work", 0.0)
    assert lab.left() == len(REFUSED) + 1
    lab.worker("-c", "1")
    lab.wait_states(lab.journal.ids("returned"))
    assert lab.prove(Rules()).acknowledged == len(REFUSED) + 1


def test_what_is_sent_through_bindings_that_have_vanished_is_stored_or_refused(redis_lab: Lab) -> None:
    lab = redis_lab
    lab.app.conf.task_queues = [Queue("celery"), Queue("news", Exchange("press", "topic"), "news.#")]
    lab.app.broker.declare(list(lab.app.conf.task_queues))
    lab.send("lab.work", 0.0, exchange="press", routing_key="news.today")
    with redis.Redis.from_url(lab.url) as client:
        assert client.delete("_kombu.binding.press") == 1
        assert client.llen("news") == 1
        stored = 0
        for _ in range(20):
            try:
                lab.send("lab.work", 0.0, exchange="press", routing_key="news.today")
            except OperationalError:
                continue
            stored += 1
        assert client.llen("news") == stored + 1
