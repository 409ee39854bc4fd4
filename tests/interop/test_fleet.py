"""Workers of both kinds on one queue, and what becomes of what a killed one of either kind holds."""

from __future__ import annotations

import time
from collections import Counter

import redis

from tests.interop.kit import Fleet, wait_for

SIDES = ("umbel", "celery")
MANY = 150


def test_a_mixed_fleet_runs_each_message_once_and_both_take_part(fleet: Fleet) -> None:
    expression = f"[note.apply_async((0.005,), queue='mixed').id for _ in range({MANY})]"
    theirs = fleet.celery.ask(expression)
    ours = [fleet.send("note", 0.005, queue="mixed").id for _ in range(MANY)]
    sent = {*theirs, *ours}
    wait_for(lambda: sent <= {run.id for run in fleet.runs("note")}, "every message to be run", 30)
    runs = [run for run in fleet.runs("note") if run.id in sent]
    assert Counter(run.id for run in runs) == Counter(dict.fromkeys(sent, 1))
    assert {run.side for run in runs} == set(SIDES)


def test_what_a_killed_celery_worker_held_is_not_touched_by_umbel_or_given_back_by_the_broker(fleet: Fleet) -> None:
    queue = f"held-by-celery-{time.time_ns()}"
    worker = fleet.start("celery", queue, name=queue, concurrency=1).wait_ready()
    sent = [fleet.celery.ask(f"slow.apply_async((30,), queue={queue!r}).id") for _ in range(3)]
    wait_for(lambda: fleet.runs("began", sent[0]) or fleet.runs("began", sent[1]), "the worker to begin")
    wait_for(lambda: all(f"[{task_id}] received" in worker.text() for task_id in sent), "the worker to hold all")
    worker.kill()
    if fleet.kind == "redis":
        with redis.Redis.from_url(fleet.broker) as client:
            before = client.hgetall("unacked")
            assert fleet.lease(queue, 3, wait=0.5) == []
            assert client.hgetall("unacked") == before
            held = [value for value in before.values() if any(task_id.encode() in value for task_id in sent)]
            assert len(held) == 3
            client.delete("unacked", "unacked_index")
        return
    again = fleet.lease(queue, 3, wait=10)
    assert sorted(got.id for got in again) == sorted(sent)


def test_what_an_umbel_worker_holds_is_not_touched_by_celery_and_comes_back_when_it_is_killed(fleet: Fleet) -> None:
    queue = f"held-by-umbel-{time.time_ns()}"
    worker = fleet.start("umbel", queue, name=queue, concurrency=1, INTEROP_LEASE="3").wait_ready()
    sent = [fleet.send("slow", 2.5, queue=queue).id for _ in range(3)]
    wait_for(lambda: fleet.runs("began"), "the worker to begin")
    wait_for(lambda: any(run.id in sent for run in fleet.runs("began")), "the worker to begin")
    if fleet.kind == "redis":  # an impatient Celery consumer: whatever was in its own keys would be taken back at once
        fleet.celery.ask("make(broker_transport_options={'visibility_timeout': 0.1}) and None")
        with redis.Redis.from_url(fleet.broker) as client:
            assert not any(sent[0].encode() in value for value in client.hvals("unacked"))
    worker.kill()
    heir = fleet.start("umbel", queue, name=f"{queue}-heir", concurrency=3, INTEROP_LEASE="3").wait_ready()
    wait_for(lambda: {run.id for run in fleet.runs("ended")} >= set(sent), "what was held to be run", 20)
    for task_id in sent:
        assert fleet.outcome(task_id)["state"] == "SUCCESS"
    heir.kill()


def test_late_acknowledged_tasks_of_a_killed_umbel_worker_may_be_run_by_celery(rabbitmq_fleet: Fleet) -> None:
    """On Redis only umbel's workers know of umbel's leases: the test before shows who takes them over."""
    fleet = rabbitmq_fleet
    fleet.umbel_worker.wait_ready()
    queue = f"from-umbel-to-celery-{time.time_ns()}"
    worker = fleet.start("umbel", queue, name=queue, concurrency=1).wait_ready()
    sent = [fleet.send("slow", 1, queue=queue).id for _ in range(2)]
    wait_for(lambda: any(run.id in sent for run in fleet.runs("began")), "the worker to begin")
    worker.kill()
    heir = fleet.start("celery", queue, name=f"{queue}-heir", concurrency=2).wait_ready()
    wait_for(lambda: {run.id for run in fleet.runs("ended")} >= set(sent), "what was held to be run", 20)
    assert {run.side for run in fleet.runs("ended") if run.id in sent} == {"celery"}
    heir.kill()
