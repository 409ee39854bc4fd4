"""Between workers or producers and the broker: connections cut, frozen, half-open and slow, through a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.process.checker import Rules
from tests.process.forked import publish_forked
from tests.process.jobs import make_app
from tests.process.lab import Lab, Worker, wait
from tests.proxy import TO_CLIENT, TO_SERVER, Proxy
from umbel.core.errors import OperationalError, TimeoutError

pytestmark = pytest.mark.timeout(90)

PUBLISH_LIMIT = 14.0
RECOVERY = 30.0
#: What nobody answers is given up after so long.
PATIENCE = {"broker_heartbeat": 2}


@pytest.fixture
def proxy(broker_lab: Lab) -> Iterator[Proxy]:
    """Give the way to the broker."""
    with Proxy(urlsplit(broker_lab.url).port or 0) as proxy:
        yield proxy


def proxied(lab: Lab, proxy: Proxy, *arguments: str) -> Worker:
    """Start a worker that reaches the broker through the proxy; results of RabbitMQ's go their own way."""
    url = proxy.url(lab.url)
    settings = {**PATIENCE, **({"result_backend": url} if lab.deployment.name == "redis" else {})}
    return lab.worker("-c", "1", *arguments, settings=settings, LAB_URL=url)


def wait_service(lab: Lab, worker: Worker) -> None:
    """Wait until the worker, the process it was, has run something that was sent now."""
    consumer = worker.consumer()
    began = time.monotonic()
    lab.wait_states([lab.send("lab.work", 0.0)], RECOVERY)
    assert time.monotonic() - began < RECOVERY
    assert worker.process.poll() is None
    assert worker.consumer() == consumer


FAULTS: dict[str, Callable[[Proxy], object]] = {
    "reset": lambda proxy: proxy.cut("rst"),
    "end": lambda proxy: proxy.cut("fin"),
    "stranded": lambda proxy: proxy.strand(),
    "deaf": lambda proxy: proxy.drop(TO_CLIENT),
    "mute": lambda proxy: proxy.drop(TO_SERVER),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_whose_connections_are_cut_or_half_open_goes_on_under_load(
    broker_lab: Lab, proxy: Proxy, fault: str
) -> None:
    worker = proxied(broker_lab, proxy)
    load = broker_lab.load("lab.work_late", shortest=0.0, longest=0.02, waiting=30)
    for _ in range(3 if fault in {"reset", "end"} else 1):
        broker_lab.wait_progress(15)
        with broker_lab.cut(fault):
            FAULTS[fault](proxy)
            broker_lab.wait_progress(40, RECOVERY)
    load.stop()
    broker_lab.prove(Rules(late=True), RECOVERY)
    wait_service(broker_lab, worker)


@pytest.mark.parametrize("fault", ["reset", "stranded"])
def test_what_is_acknowledged_early_runs_once_however_the_connection_ends(
    broker_lab: Lab, proxy: Proxy, fault: str
) -> None:
    worker = proxied(broker_lab, proxy)
    load = broker_lab.load("lab.work", shortest=0.0, longest=0.02, waiting=30)
    for _ in range(4 if fault == "reset" else 1):
        broker_lab.wait_progress(15)
        with broker_lab.cut(fault):
            FAULTS[fault](proxy)
            broker_lab.wait_progress(40, RECOVERY)
    load.stop()
    assert broker_lab.prove(Rules(late=False), RECOVERY).duplicated == 0
    assert worker.process.poll() is None


@pytest.mark.parametrize("fault", ["stranded", "mute", "refused"])
def test_an_idle_worker_notices_that_nobody_answers(broker_lab: Lab, proxy: Proxy, fault: str) -> None:
    worker = proxied(broker_lab, proxy)
    broker_lab.wait_states(broker_lab.send_many("lab.work", 3, 0.0))
    with broker_lab.cut(fault):
        if fault == "refused":
            proxy.refuse()
            proxy.cut()
            wait(lambda: str(proxy.port) in worker.text(), 20, "the complaint")
            proxy.restore()
        else:
            FAULTS[fault](proxy)
        wait_service(broker_lab, worker)
    broker_lab.prove(Rules())


def test_a_frozen_way_to_the_broker_thaws_and_all_goes_on(broker_lab: Lab, proxy: Proxy) -> None:
    worker = proxied(broker_lab, proxy)
    load = broker_lab.load("lab.work_late", shortest=0.0, longest=0.02, waiting=30)
    broker_lab.wait_progress()
    with broker_lab.cut("frozen"):
        began = time.monotonic()
        proxy.freeze()
        wait(lambda: time.monotonic() - began > 8, 15, "the lease to lapse")
        proxy.restore()
        broker_lab.wait_progress(40, RECOVERY)
    load.stop()
    broker_lab.prove(Rules(late=True), RECOVERY)
    wait_service(broker_lab, worker)


def test_connections_cut_in_the_middle_of_what_they_carry_lose_nothing(broker_lab: Lab, proxy: Proxy) -> None:
    worker = proxied(broker_lab, proxy)
    load = broker_lab.load("lab.work_late", shortest=0.0, longest=0.005, waiting=30)
    with broker_lab.cut("bytes"):
        for count in (0, 1, 5, 7, 8, 13, 50, 400, 3000):
            for direction in (TO_CLIENT, TO_SERVER):
                proxy.cut_after(count, direction)
                before = broker_lab.journal.count("end")
                wait(lambda before=before: broker_lab.journal.count("end") > before + 3, RECOVERY, "progress")
    load.stop()
    broker_lab.prove(Rules(late=True), RECOVERY)
    wait_service(broker_lab, worker)


def test_a_slow_way_to_the_broker_slows_the_work_and_breaks_nothing(broker_lab: Lab, proxy: Proxy) -> None:
    worker = proxied(broker_lab, proxy)
    proxy.delay(0.075)
    proxy.throttle(64_000)
    ids = broker_lab.send_many("lab.work_late", 30, 0.01)
    broker_lab.wait_states(ids, 30)
    assert broker_lab.prove(Rules(late=True)).duplicated == 0
    assert "lapsed" not in worker.text()


def test_an_acknowledgement_that_is_lost_repeats_nothing(broker_lab: Lab, proxy: Proxy) -> None:
    lab, gate = broker_lab, broker_lab.folder / "gate"
    worker = proxied(lab, proxy)
    held = lab.send("lab.held", str(gate))
    lab.wait_started(held)
    with lab.cut("acknowledgement"):
        proxy.drop(TO_SERVER)
        gate.touch()
        wait(lambda: held in lab.journal.ids("end"), 10, "the end of the task")
        lab.wait_states([held], RECOVERY)
        wait_service(lab, worker)
    assert lab.prove(Rules(late=True), RECOVERY).duplicated == 0


# --- producers -------------------------------------------------------------------------------------------------


@pytest.fixture
def producer(broker_lab: Lab, proxy: Proxy) -> Lab:
    """Let the lab itself send through the proxy."""
    direct = broker_lab.app
    broker_lab.app = make_app(proxy.url(broker_lab.url), {**broker_lab.settings, **PATIENCE})
    direct.close()
    return broker_lab


def test_a_producer_whose_connection_is_cut_sends_again_by_itself(producer: Lab, proxy: Proxy) -> None:
    producer.worker(LAB_URL=producer.deployment.broker)
    producer.send_many("lab.work", 5, 0.0)
    for how in ("rst", "fin"):
        for _ in range(3):
            proxy.cut(how)
            producer.send("lab.work", 0.0)
    finals = producer.wait_states(producer.journal.ids("returned"))
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert producer.prove(Rules()).duplicated == 0


def test_a_publish_whose_reply_is_lost_is_done_again_and_runs_once(producer: Lab, proxy: Proxy) -> None:
    producer.send("lab.work", 0.0)
    for _ in range(5):
        proxy.cut_after(0, TO_CLIENT)
        producer.send("lab.work", 0.0)
    producer.worker(LAB_URL=producer.deployment.broker)
    finals = producer.wait_states(producer.journal.ids("returned"))
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert producer.prove(Rules()).duplicated == 0


@pytest.mark.parametrize("fault", ["stranded", "deaf"])
def test_a_publish_into_a_half_open_connection_ends_in_time_and_is_honest(
    producer: Lab, proxy: Proxy, fault: str
) -> None:
    producer.send("lab.work", 0.0)
    FAULTS[fault](proxy)
    for _ in range(3):
        began = time.monotonic()
        with suppress(OperationalError):
            producer.send("lab.work", 0.0)
        assert time.monotonic() - began < PUBLISH_LIMIT
    producer.worker(LAB_URL=producer.deployment.broker)
    finals = producer.wait_states(producer.journal.ids("returned"))
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert producer.prove(Rules()).duplicated == 0


def test_publishing_to_a_broker_that_answers_nothing_raises_in_time(producer: Lab, proxy: Proxy) -> None:
    producer.send("lab.work", 0.0)
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(OperationalError):
        producer.send("lab.work", 0.0)
    assert time.monotonic() - began < PUBLISH_LIMIT
    proxy.restore()
    producer.send("lab.work", 0.0)
    producer.worker(LAB_URL=producer.deployment.broker)
    producer.wait_states(producer.journal.ids("returned"))


@pytest.mark.parametrize("results", ["redis", "rpc"])
def test_waiting_for_a_result_survives_a_half_open_connection(request: pytest.FixtureRequest, results: str) -> None:
    lab: Lab = request.getfixturevalue("redis_lab" if results == "redis" else "rabbit_lab")
    with Proxy(urlsplit(lab.url).port or 0) as proxy:
        url = proxy.url(lab.url)
        backend = url if results == "redis" else "rpc://"
        app = make_app(url, {**lab.settings, **PATIENCE, "result_backend": backend})
        lab.worker("-c", "1", settings={} if results == "redis" else {"result_backend": backend})
        result = app.tasks["lab.work"].apply_async((2.0,))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            result.get(timeout=0.3)
        proxy.strand()
        assert result.get(timeout=RECOVERY)
        assert time.monotonic() - began < RECOVERY
        app.close()


def test_producers_forked_after_the_first_publish_store_everything(broker_lab: Lab) -> None:
    published = publish_forked(broker_lab, 50)
    assert broker_lab.left() == published == 251
    broker_lab.worker()
    assert broker_lab.prove(Rules()).acknowledged == published
