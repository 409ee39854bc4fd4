"""RabbitMQ answers and refuses: alarms, queues and virtual hosts that vanish, limits. No worker ends for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import amqp
import pytest

from tests.process.checker import Rules
from tests.process.lab import Lab, Worker, wait
from tests.servers import RabbitServer
from umbel.core.errors import OperationalError

pytestmark = pytest.mark.timeout(120)

PUBLISH_LIMIT = 14.0
RECOVERY = 30.0


@contextmanager
def channel_of(lab: Lab) -> Iterator[Any]:
    """Open a channel of a stranger."""
    parts = urlsplit(lab.deployment.broker)
    with amqp.Connection(f"127.0.0.1:{parts.port}", "guest", "guest", virtual_host=parts.path[1:]) as connection:
        yield connection.channel()


def vhost_of(lab: Lab) -> str:
    return urlsplit(lab.deployment.broker).path[1:]


def survives(lab: Lab, worker: Worker, consumer: int) -> None:
    """Check that the worker is the one it was and works again."""
    lab.wait_states([lab.send("lab.work_late", 0.0)], RECOVERY)
    assert worker.process.poll() is None
    assert worker.consumer() == consumer


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_a_broker_that_reads_no_more_is_told_to_senders_in_time(
    own_rabbit_lab: Lab, own_rabbit: RabbitServer, resource: str
) -> None:
    lab = own_rabbit_lab
    worker = lab.worker("-c", "1")
    consumer = worker.consumer()
    ids = lab.send_many("lab.work_late", 40, 0.05)
    lab.wait_progress(5)
    alarm = f"rabbit_alarm:set_alarm({{{{resource_limit, {resource}, node()}}, []}})"
    # Setting it returns at once; the question is answered when the connections have been told.
    own_rabbit.evaluate(f"{alarm}, rabbit_alarm:get_alarms().")
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(OperationalError) as raised:
                lab.send("lab.work_late", 0.0)
            assert time.monotonic() - began < PUBLISH_LIMIT
        assert "block" in str(raised.value) or "alarm" in str(raised.value)
    finally:
        own_rabbit.evaluate(f"rabbit_alarm:clear_alarm({{resource_limit, {resource}, node()}}).")
    lab.wait_states(ids, RECOVERY)
    survives(lab, worker, consumer)
    assert lab.prove(Rules(late=True)).duplicated == 0


def test_a_queue_deleted_under_its_consumers_is_made_again(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    worker = lab.worker("-c", "1")
    consumer = worker.consumer()
    lab.wait_states(lab.send_many("lab.work", 3, 0.0))
    for _ in range(2):
        with channel_of(lab) as channel:
            channel.queue_delete("celery")
        began = time.monotonic()
        stored: list[str] = []
        while not stored and time.monotonic() - began < RECOVERY:
            try:
                stored.append(lab.send("lab.work", 0.0))
            except OperationalError:
                lab.app.broker.declare([])
        lab.wait_states(stored, RECOVERY)
    assert worker.consumer() == consumer
    lab.prove(Rules())


def test_what_is_sent_to_a_queue_that_has_vanished_is_stored_or_refused(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    lab.send("lab.work", 0.0)
    with channel_of(lab) as channel:
        channel.queue_delete("celery")
    lab.journal.write("dropped")
    kept: list[str] = []
    for _ in range(10):
        try:
            kept.append(lab.send("lab.work", 0.0))
        except OperationalError:
            continue
    lab.worker("-c", "1")
    if kept:
        lab.wait_states(kept)


def test_a_virtual_host_that_vanishes_and_returns_is_served_again(
    own_rabbit_lab: Lab, own_rabbit: RabbitServer
) -> None:
    lab = own_rabbit_lab
    worker = lab.worker("-c", "1")
    consumer = worker.consumer()
    lab.wait_states(lab.send_many("lab.work", 3, 0.0))
    own_rabbit.remove_vhost(vhost_of(lab))
    with pytest.raises(OperationalError):
        lab.send("lab.work", 0.0)
    wait(lambda: vhost_of(lab) in worker.text(), 20, "the complaint")
    own_rabbit.add_vhost(vhost_of(lab))

    def is_back() -> bool:
        try:
            return bool(lab.send("lab.work_late", 0.0))
        except OperationalError:
            return False

    wait(is_back, RECOVERY, "the producer to come back")
    survives(lab, worker, consumer)


def test_quorum_queues_keep_the_same_promises(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    lab.settings["task_default_queue_type"] = "quorum"
    lab.app.conf.update(task_default_queue_type="quorum")
    worker = lab.worker()
    load = lab.load("lab.work_late", shortest=0.0, longest=0.03)
    lab.random_kills(3, lambda: worker.kill_executor(lab.rng))
    lab.random_kills(2, worker.kill_consumer)
    wait(worker.consumer, 10, "the consumer's successor")
    load.stop()
    poison = lab.send("lab.die_late")
    delayed = lab.send("lab.work_late", 0.0, countdown=2)
    finals = lab.wait_states([poison, delayed], 30)
    assert finals[poison].error == "WorkerLostError"
    assert finals[delayed].state == "SUCCESS"
    lab.prove(Rules(late=True))


def test_a_message_over_the_brokers_limit_is_refused_and_the_next_one_goes_out(
    own_rabbit_lab: Lab, own_rabbit: RabbitServer
) -> None:
    lab = own_rabbit_lab
    before = own_rabbit.evaluate("application:get_env(rabbit, max_message_size, 134217728).")
    own_rabbit.evaluate("application:set_env(rabbit, max_message_size, 200000).")
    try:
        lab.send("lab.work", 0.0)
        began = time.monotonic()
        with pytest.raises(OperationalError):
            lab.app.tasks["lab.work"].apply_async(("x" * 400_000,))
        assert time.monotonic() - began < PUBLISH_LIMIT
        lab.send("lab.work", 0.0)
    finally:
        own_rabbit.evaluate(f"application:set_env(rabbit, max_message_size, {before}).")
    lab.worker("-c", "1")
    lab.prove(Rules())


def test_a_queue_that_takes_no_more_refuses_and_keeps_what_it_took(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    with channel_of(lab) as channel:
        arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
        channel.queue_declare("small", durable=True, auto_delete=False, arguments=arguments)
    lab.app.conf.update(task_publish_retry=False)
    from umbel import Queue

    lab.app.conf.update(task_queues=[Queue("small", queue_arguments=arguments)], task_default_queue="small")
    kept = 0
    for _ in range(8):
        try:
            lab.send("lab.work", 0.0, queue="small")
        except OperationalError:
            continue
        kept += 1
    assert 3 <= kept < 8
    with channel_of(lab) as channel:
        assert channel.queue_declare("small", passive=True).message_count == kept


def test_a_task_longer_than_the_brokers_patience_runs_once(own_rabbit_lab: Lab, own_rabbit: RabbitServer) -> None:
    lab = own_rabbit_lab
    own_rabbit.evaluate("application:set_env(rabbit, channel_tick_interval, 500).")
    own_rabbit.evaluate("application:set_env(rabbit, consumer_timeout, 4000).")
    try:
        worker = lab.worker("-c", "1")
        other = lab.worker("-c", "1")
        ids = lab.send_many("lab.work", 2, 8.0)
        lab.wait_states(ids, 30)
        lab.wait_states(lab.send_many("lab.work", 4, 0.0))
    finally:
        own_rabbit.evaluate("application:set_env(rabbit, consumer_timeout, 1800000).")
        own_rabbit.evaluate("application:set_env(rabbit, channel_tick_interval, 60000).")
    assert lab.prove(Rules()).duplicated == 0
    assert worker.process.poll() is None
    assert other.process.poll() is None


def test_a_connection_that_the_broker_closes_is_made_again(own_rabbit_lab: Lab, own_rabbit: RabbitServer) -> None:
    lab = own_rabbit_lab
    worker = lab.worker()
    load = lab.load("lab.work_late", shortest=0.0, longest=0.01, patient=True)
    with lab.cut("closed"):
        for _ in range(4):
            lab.wait_progress(15)
            own_rabbit.evaluate('[rabbit_networking:close_connection(P, "x") || P <- rabbit_networking:connections()].')
        lab.wait_progress(15)
    load.stop()
    lab.prove(Rules(late=True))
    assert worker.process.poll() is None
