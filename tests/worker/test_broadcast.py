"""Broadcast queues with real workers: each has a copy of its own, which goes when the worker ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_kit import Crewed, wait
from umbel import Queue
from umbel.core.errors import Unroutable
from umbel.core.queues import Broadcast

TELL = """
from umbel import Queue
from umbel.core.queues import Broadcast

app.conf.task_queues = [Queue("plain"), Broadcast("notices")]
app.conf.task_default_queue = "plain"
app.conf.task_routes = {"crewed.tell": {"queue": "notices"}}

@app.task(ignore_result=True)
def tell(word):
    note("told", word=word, worker=app.current_task.request.hostname)
"""


@pytest.fixture
def crewed(tmp_path: Path) -> Iterator[Crewed]:
    made = Crewed(tmp_path)
    yield made
    made.close()


def test_every_worker_runs_what_is_broadcast_until_it_ends(crewed: Crewed) -> None:
    crewed.write(TELL)
    crewed.app.conf.task_queues = [Queue("plain"), Broadcast("notices")]
    crewed.app.conf.task_routes = {"crewed.tell": {"queue": "notices"}}
    first = crewed.worker("-c", "1", name="one")
    crewed.worker("-c", "1", "-Q", "notices", name="two")
    crewed.send("tell", "both")
    wait(lambda: len(crewed.notes("told")) == 2, what="both workers to be told")
    assert sorted(note["worker"].partition("@")[2] for note in crewed.notes("told")) == ["one", "two"]
    assert first.stop() == 0
    crewed.send("tell", "the second")
    wait(lambda: len(crewed.notes("told")) == 3, what="the second worker to be told alone")
    assert crewed.notes("told")[2]["worker"] == "umbel@two"
    assert crewed.workers[1].stop() == 0
    with pytest.raises(Unroutable):
        crewed.send("tell", "nobody")
