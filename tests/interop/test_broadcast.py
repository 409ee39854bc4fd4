"""Broadcast queues and fanout exchanges that both kinds of worker listen to."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.interop.environment import PYTHON
from tests.interop.kit import Fleet, Process, wait_for
from umbel import Exchange, Queue
from umbel.core.queues import Broadcast

PROGRAMS = {
    "celery": [str(PYTHON), "-m", "celery", "-A", "broadcast_celery"],
    "umbel": [sys.executable, "-m", "umbel", "-A", "broadcast_umbel"],
}


@pytest.fixture
def listeners(fleet: Fleet) -> Iterator[Fleet]:
    """Two workers of each kind, each with one process for tasks."""
    started = []
    for side, queues in (("celery", "notices"), ("umbel", "notices,shared")):
        for number in (1, 2):
            name = f"{side}-listener-{number}"
            arguments = ["worker", "-Q", queues, "-n", f"{name}@test", "-c", "1", "-l", "INFO"]
            log = fleet.folder / f"{name}.log"
            log.unlink(missing_ok=True)
            started.append(Process(name, [*PROGRAMS[side], *arguments], fleet.environment(side), log))
    try:
        for process in started:
            process.wait_ready()
        yield fleet
    finally:
        for process in started:
            process.stop()


def of_celery(fleet: Fleet, exchange: str) -> str:
    """Send through a fanout exchange as a Celery producer that has declared it."""
    queue = f"Queue('nobody_{exchange}', Exchange({exchange!r}, 'fanout'), 'mixed')"
    task_id: str = fleet.celery.ask(f"note.apply_async((), queue={queue}, ignore_result=True).id")
    return task_id


def of_umbel(fleet: Fleet, queue: Queue) -> str:
    """Send through a fanout exchange as umbel."""
    task_id: str = fleet.send("note", queue=queue, ignore_result=True).id
    return task_id


def told(fleet: Fleet, task_id: str) -> Counter[str]:
    """How many processes of each side have run a task; none has run it twice."""
    runs = fleet.runs("note", task_id)
    assert len({run.pid for run in runs}) == len(runs)
    return Counter(run.side for run in runs)


def settled(fleet: Fleet, send: Callable[[], str], wanted: dict[str, int]) -> None:
    """Send until all listen; then every message has been run by exactly those who are wanted."""
    wait_for(lambda: wait_told(fleet, send()) == wanted, lambda: f"all to listen: {fleet.explain()}")
    sent = [send() for _ in range(3)]
    for task_id in sent:
        wait_for(lambda task_id=task_id: told(fleet, task_id) == wanted, lambda: f"{wanted}: {fleet.explain()}")
    assert [told(fleet, task_id) for task_id in sent] == [wanted] * 3


def wait_told(fleet: Fleet, task_id: str) -> Counter[str]:
    """How many have run a task once that has not changed for a while."""
    seen = [told(fleet, task_id)]
    wait_for(lambda: seen.append(told(fleet, task_id)) or (len(seen) > 20 and seen[-20] == seen[-1]), "rest")
    return seen[-1]


def test_every_worker_of_either_kind_runs_what_either_kind_broadcasts(listeners: Fleet) -> None:
    everyone = {"celery": 2, "umbel": 2}
    listeners.umbel.amqp.queues.add(Broadcast("notices"))
    settled(listeners, lambda: of_umbel(listeners, listeners.umbel.amqp.queues["notices"]), everyone)
    settled(listeners, lambda: of_celery(listeners, "notices"), everyone)


def test_a_queue_that_two_workers_share_gets_one_copy(listeners: Fleet) -> None:
    board = Queue("shared", Exchange("board", "fanout"), "mixed")
    settled(listeners, lambda: of_umbel(listeners, board), {"umbel": 1})
    settled(listeners, lambda: of_celery(listeners, "board"), {"umbel": 1})
