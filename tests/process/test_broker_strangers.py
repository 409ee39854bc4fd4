"""Garbage pushed straight into the queue between good messages: it is put aside, and nobody else notices."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.process import foreign
from tests.process.checker import Rules
from tests.process.lab import Lab, Worker, wait
from umbel.app.control import CONTROL_TOPIC

pytestmark = pytest.mark.timeout(90)


def memory(pid: int) -> int:
    """Return the most memory that a process has had, in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


def check_survivors(lab: Lab, worker: Worker, good: list[foreign.Parcel]) -> None:
    """Check that the good ones ran, the bad ones did not, and that the worker is what it was."""
    ids = [parcel.id for parcel in good]
    finals = lab.wait_states(ids, 40)
    assert {finals[id].state for id in ids} == {"SUCCESS"}
    wait(lambda: lab.left() == 0, 20, "the garbage to be put aside")
    started = set(lab.journal.ids("start"))
    assert [name for name, parcel in foreign.BAD.items() if parcel.id in started] == []
    canary = lab.send("lab.work", 0.0)
    began = time.monotonic()
    lab.wait_states([canary], 5)
    assert time.monotonic() - began < 2.0
    assert worker.process.poll() is None


def runnable(lab: Lab) -> list[foreign.Parcel]:
    """Return good messages, intended and returned in the journal."""
    parcels = [foreign.good() for _ in range(len(foreign.BAD) + 1)]
    for parcel in parcels:
        lab.journal.write("intended", parcel.id)
        lab.journal.write("returned", parcel.id)
    return parcels


def test_garbage_in_a_redis_list_is_put_aside(redis_lab: Lab) -> None:
    lab = redis_lab
    worker = lab.worker("-c", "1")
    executors, consumer = worker.executors(), worker.consumer()
    good = runnable(lab)
    garbage = [*foreign.RAW.values(), *foreign.odd_envelopes().values()]
    garbage += [foreign.envelope(parcel) for parcel in foreign.BAD.values()]
    elements = [foreign.envelope(parcel) for parcel in good]
    for number, element in enumerate(garbage):
        elements.insert(min(2 * number, len(elements)), element)
    foreign.push(lab, elements)
    check_survivors(lab, worker, good)
    assert (worker.executors(), worker.consumer()) == (executors, consumer), "a message took a process down"
    explained = len(lab.dead()) + len(lab.finals([parcel.id for parcel in foreign.BAD.values() if parcel.id]))
    assert explained >= len(foreign.RAW) + len(foreign.BAD) - 3
    assert memory(consumer) < 400
    assert memory(executors[0]) < 400
    assert "\nERROR forged" not in worker.text()
    worker.stop()
    assert worker.wait_exit() == 0


def test_garbage_published_to_rabbitmq_is_put_aside(rabbit_lab: Lab) -> None:
    lab = rabbit_lab
    worker = lab.worker("-c", "1")
    executors, consumer = worker.executors(), worker.consumer()
    good = runnable(lab)
    plain = foreign.good()
    garbage = [
        # Headers of that size do not fit into a frame.
        *(parcel for name, parcel in foreign.BAD.items() if not name.endswith("of 200 kB")),
        *(foreign.Parcel("", {}, body, foreign.GONE, foreign.GONE) for body in foreign.RAW.values()),
        plain._replace(content_type=foreign.GONE, headers={}),
        plain._replace(headers={"task": "lab.work", "id": {"a": [1, {"b": 2}]}}),
        plain._replace(headers={**plain.headers, "umbel-crashes": "x", "umbel-offers": -1, "x-death": 5}),
        plain._replace(properties={"expiration": "100000", "priority": 255, "reply_to": "nobody", "delivery_mode": 1}),
    ]
    parcels = list(good)
    for number, parcel in enumerate(garbage):
        parcels.insert(min(2 * number, len(parcels)), parcel)
    foreign.basic_publish(lab, parcels)
    check_survivors(lab, worker, good)
    assert (worker.executors(), worker.consumer()) == (executors, consumer), "a message took a process down"
    assert memory(consumer) < 400
    assert memory(executors[0]) < 400
    assert "\nERROR forged" not in worker.text()
    worker.stop()
    assert worker.wait_exit() == 0


def test_garbage_before_the_good_ones_does_not_stop_a_worker_that_starts_again_and_again(broker_lab: Lab) -> None:
    lab = broker_lab
    if lab.deployment.name == "redis":
        foreign.push(lab, [b"not json", b"{}", foreign.envelope(foreign.BAD["task a list"])])
    else:
        lab.send("lab.work", 0.0)  # declares the queue
        foreign.basic_publish(
            lab, [foreign.BAD["task a list"], foreign.BAD["limits texts"], foreign.BAD["body a number"]]
        )
    ids = lab.send_many("lab.work_late", 20, 0.0)
    for _ in range(2):
        worker = lab.worker("-c", "1")
        worker.stop()
        assert worker.wait_exit() == 0
    lab.worker("-c", "1")
    finals = lab.wait_states(ids)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    lab.prove(Rules(late=True))


def test_one_garbled_broadcast_ends_nobody_on_redis(redis_lab: Lab) -> None:
    worker = redis_lab.worker("-c", "1")
    consumer = worker.consumer()
    channels = ["/{db}.celery.pidbox", "/{db}.celeryev/worker.heartbeat", "/{db}.reply.celery.pidbox"]
    for channel in (*channels, f"umbel.bus.{CONTROL_TOPIC}"):
        for payload in (b"{}", b"", b"nonsense", b"[]", b"[" * 100_000, foreign.envelope(foreign.good()), b"\xff"):
            foreign.redis_publish(redis_lab, channel, payload)
    for name in ("umbel.due", "umbel.wake", "celery-task-meta-x"):
        foreign.redis_publish(redis_lab, name, b"\xff\xfenonsense")
    ids = redis_lab.send_many("lab.work", 5, 0.0)
    redis_lab.wait_states(ids)
    assert worker.consumer() == consumer
    answers = redis_lab.app.control.inspect(timeout=5).ping()
    assert answers, "nobody answers control commands any more"


def test_one_garbled_broadcast_ends_nobody_on_rabbitmq(rabbit_lab: Lab) -> None:
    worker = rabbit_lab.worker("-c", "1")
    consumer = worker.consumer()
    rabbit_lab.app.control.inspect(timeout=5).ping()
    junk = [
        foreign.Parcel("x", {}, b"{}", "application/json", "utf-8"),
        foreign.Parcel("x", {}, b"nonsense", "application/x-nothing", "klingon"),
        foreign.Parcel("x", {"clock": "x", "expires": []}, b'{"method": 5, "arguments": []}'),
        foreign.good(),
    ]
    junk += [foreign.Parcel("", {}, body) for body in (b"", b"[]", b"[" * 100_000, b"\xff")]
    foreign.basic_publish(rabbit_lab, junk, exchange="umbel.bus", key=CONTROL_TOPIC)
    rabbit_lab.wait_states(rabbit_lab.send_many("lab.work", 5, 0.0))
    assert worker.consumer() == consumer
    assert rabbit_lab.app.control.inspect(timeout=5).ping(), "nobody answers control commands any more"


def test_messages_of_the_old_protocol_run(broker_lab: Lab) -> None:
    lab = broker_lab
    lab.worker("-c", "1")
    parcels = [foreign.protocol_1(), foreign.protocol_1(kwargs={"seconds": 0.0}, args=[]), foreign.good()]
    for parcel in parcels:
        lab.journal.write("intended", parcel.id)
        lab.journal.write("returned", parcel.id)
    if lab.deployment.name == "redis":
        foreign.push(lab, [foreign.envelope(parcel) for parcel in parcels])
    else:
        foreign.basic_publish(lab, parcels)
    finals = lab.wait_states([parcel.id for parcel in parcels])
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    lab.prove(Rules())


def test_a_flood_of_countdowns_stays_out_of_the_worker(broker_lab: Lab) -> None:
    lab = broker_lab
    worker = lab.worker("-c", "1")
    lab.wait_states(lab.send_many("lab.work", 3, 0.0))
    before = memory(worker.consumer())
    ids = [result.id for result in lab.app.send_many("lab.work", [((0.0,), {})] * 5000, countdown=600)]
    assert len(ids) == 5000
    lab.wait_states(lab.send_many("lab.work", 20, 0.0))
    assert memory(worker.consumer()) - before < 10
    # RabbitMQ counts what is in quorum queues, as the levels of delay are, every five seconds.
    wait(lambda: lab.left() == 5000, 20, "all of them to be counted")
