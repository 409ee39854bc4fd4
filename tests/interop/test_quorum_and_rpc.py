"""RabbitMQ's quorum queues, native delays and results that travel as messages, between both sides."""

from __future__ import annotations

import time

import pytest

from tests.interop.kit import Fleet, wait_for
from umbel import Exchange, Queue, chain


def quorum_queue(name: str) -> Queue:
    """The queue as both sides declare it."""
    return Queue(name, Exchange(name, "topic"), name, queue_arguments={"x-queue-type": "quorum"})


@pytest.fixture
def fleet(quorum_rabbitmq_fleet: Fleet) -> Fleet:
    """The fleet of this file."""
    return quorum_rabbitmq_fleet


THEIRS = "Queue('to_umbel', Exchange('to_umbel', 'topic'), 'to_umbel', queue_arguments={'x-queue-type': 'quorum'})"


def test_results_travel_as_messages_in_both_directions(fleet: Fleet) -> None:
    sent = fleet.send("echo", 1, queue=quorum_queue("to_celery"))
    assert sent.get(timeout=15) == {"side": "celery", "args": [1], "kwargs": {}}
    answer = fleet.celery.ask(f"echo.apply_async((2,), queue={THEIRS}).get(timeout=15)")
    assert answer == {"side": "umbel", "args": [2], "kwargs": {}}


def test_the_last_step_of_a_chain_answers_whoever_sent_it(fleet: Fleet) -> None:
    add = fleet.umbel.tasks["fleet.add"]
    fleet.umbel.broker.declare([quorum_queue("to_celery")])
    steps = [add.s(*args).set(exchange="to_celery", routing_key="to_celery") for args in ((1, 1), (2,), (3,))]
    assert chain(*steps).apply_async().get(timeout=15) == 7


def test_errors_travel_as_messages_in_both_directions(fleet: Fleet) -> None:
    with pytest.raises(ValueError, match="bad"):
        fleet.send("fail", "ValueError", "bad", queue=quorum_queue("to_celery")).get(timeout=15)
    outcome = fleet.celery.ask(f"outcome(fail.apply_async(('ValueError', 'bad'), queue={THEIRS}).id)")
    assert outcome["value"] == {"error": "ValueError", "module": "builtins", "args": ["bad"]}


def test_countdowns_pass_in_the_broker(fleet: Fleet) -> None:
    began = time.time()
    ours = fleet.send("echo", 1, queue=quorum_queue("to_celery"), countdown=1.5).id
    theirs = fleet.celery.ask(f"echo.apply_async((2,), queue={THEIRS}, countdown=1.5).id")
    for task_id, side in ((ours, "celery"), (theirs, "umbel")):
        wait_for(lambda task_id=task_id: fleet.runs("echo", task_id), f"the task with a countdown for {side}")
        (run,) = fleet.runs("echo", task_id)
        assert run.side == side
        assert 1.45 <= run.at - began < 6


def test_retries_count_on_in_quorum_queues(fleet: Fleet) -> None:
    assert fleet.send("again", 2, 1, queue=quorum_queue("to_celery")).get(timeout=20) == 2
    assert fleet.celery.ask(f"again.apply_async((2, 1), queue={THEIRS}).get(timeout=20)") == 2
