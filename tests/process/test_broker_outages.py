"""The broker dies, stops or stands still under load: nothing that was accepted is lost, and all workers go on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.process.checker import Rules
from tests.process.conftest import Opener
from tests.process.deployments import on_rabbitmq
from tests.process.lab import Lab, Worker, wait
from tests.servers import RabbitAddress, RedisServer
from tests.servers.process import Server
from umbel.core.errors import OperationalError

pytestmark = pytest.mark.timeout(120)

#: `delay()` gives up after 10 s; the machine is shared.
PUBLISH_LIMIT = 14.0
#: Seconds within which workers are at work again.
RECOVERY = 30.0


@pytest.fixture(params=["redis", "rabbitmq"])
def own_lab(request: pytest.FixtureRequest) -> Lab:
    """Give a lab on a broker that may be killed."""
    lab: Lab = request.getfixturevalue("own_redis_lab" if request.param == "redis" else "own_rabbit_lab")
    return lab


def server_of(lab: Lab) -> Server:
    assert lab.deployment.server is not None
    return lab.deployment.server


def wait_service(lab: Lab, workers: list[Worker]) -> None:
    """Wait until each worker has begun something new, and is still the process it was."""
    since = time.monotonic()

    def all_at_work() -> bool:
        busy = {event.pid for event in lab.journal.events() if event.what == "start" and event.t > since}
        return all(busy & set(worker.executors()) for worker in workers)

    wait(all_at_work, RECOVERY, "every worker to be at work again")
    assert all(worker.process.poll() is None for worker in workers)


MODES = [pytest.param("lab.work_late", True, id="late"), pytest.param("lab.work", False, id="early")]


@pytest.mark.parametrize(("task", "late"), MODES)
def test_a_broker_killed_and_started_again_under_load_loses_nothing(own_lab: Lab, task: str, late: bool) -> None:
    server = server_of(own_lab)
    workers = [own_lab.worker("-c", "1") for _ in range(2)]
    consumers = [worker.consumer() for worker in workers]
    load = own_lab.load(task, shortest=0.0, longest=0.02, patient=True)
    for _ in range(3 if own_lab.deployment.name == "redis" else 1):
        own_lab.wait_progress()
        with own_lab.cut("killed"):
            server.kill()
            server.start()
            wait_service(own_lab, workers)
    load.stop()
    verdict = own_lab.prove(Rules(late=late))
    assert verdict.acknowledged > 20
    assert [worker.consumer() for worker in workers] == consumers
    assert load.slowest < PUBLISH_LIMIT


def test_early_tasks_that_run_while_their_broker_is_killed_and_started_again_run_once(own_lab: Lab) -> None:
    server = server_of(own_lab)
    workers = [own_lab.worker("-c", "1") for _ in range(2)]
    running = own_lab.send_many("lab.work", 2, 3.0)
    waiting = own_lab.send_many("lab.work", 6, 0.05)
    for id in running:
        own_lab.wait_started(id)
    with own_lab.cut("killed"):
        server.kill()
        server.start()
        finals = own_lab.wait_states([*running, *waiting], RECOVERY)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    starts = own_lab.journal.ids("start")
    assert {id: starts.count(id) for id in finals} == dict.fromkeys(finals, 1)
    assert own_lab.prove(Rules()).duplicated == 0
    assert all(worker.process.poll() is None for worker in workers)


def stop_and_start(server: Server) -> Callable[[], object]:
    server.stop()
    return server.start


def freeze_and_thaw(server: Server) -> Callable[[], object]:
    server.freeze()
    return server.thaw


@pytest.mark.slow
@pytest.mark.parametrize("fault", [stop_and_start, freeze_and_thaw], ids=["stopped", "frozen"])
def test_a_broker_that_is_away_for_twenty_seconds_is_waited_for(
    own_lab: Lab, fault: Callable[[Server], Callable[[], object]]
) -> None:
    workers = [own_lab.worker("-c", "1") for _ in range(2)]
    load = own_lab.load("lab.work_late", shortest=0.0, longest=0.02, patient=True)
    own_lab.wait_progress()
    with own_lab.cut(fault.__name__):
        began = time.monotonic()
        mend = fault(server_of(own_lab))
        wait(lambda: time.monotonic() - began > 20, 30, "the outage to be over")
        mend()
        wait_service(own_lab, workers)
    load.stop()
    own_lab.prove(Rules(late=True, unsettled=3.0))
    assert load.failed > 0
    assert load.slowest < PUBLISH_LIMIT


def test_a_crowd_of_workers_comes_back_after_a_restart_and_repeats_little(own_lab: Lab) -> None:
    workers = [own_lab.worker("-c", "1", "-l", "INFO", ready=False) for _ in range(5)]
    for worker in workers:
        worker.wait_ready(40)
    ids = own_lab.send_many("lab.work_late", 100, 0.1)
    own_lab.wait_progress(5)
    with own_lab.cut("restarted"):
        server_of(own_lab).restart()
        own_lab.wait_progress(20)
    own_lab.wait_states(ids)
    more = own_lab.send_many("lab.work_late", 20, 0.05)
    own_lab.wait_states(more)
    own_lab.prove(Rules(late=True))
    assert all(worker.process.poll() is None for worker in workers)


def test_publishing_while_the_broker_is_gone_ends_with_an_error_in_time_and_what_returned_is_kept(own_lab: Lab) -> None:
    server = server_of(own_lab)
    kept = own_lab.send_many("lab.work", 3, 0.0)
    own_lab.app.conf.update(task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_max": 0.5})
    server.kill()
    for retry in (False, True):
        began = time.monotonic()
        with pytest.raises(OperationalError) as raised:
            own_lab.send("lab.work", 0.0, retry=retry)
        assert time.monotonic() - began < PUBLISH_LIMIT
        assert str(server.port) in str(raised.value)
        assert "guest:guest" not in str(raised.value)
    server.start()
    more = own_lab.send_many("lab.work", 3, 0.0)
    own_lab.worker()
    finals = own_lab.wait_states([*kept, *more])
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    own_lab.prove(Rules())


def test_a_worker_that_is_started_before_its_broker_waits_for_it(own_lab: Lab) -> None:
    server = server_of(own_lab)
    server.stop()
    worker = own_lab.worker("-c", "1", ready=False)
    wait(lambda: "127.0.0.1" in worker.text() or worker.process.poll() is not None, 20, "the complaint")
    assert worker.process.poll() is None
    server.start()
    own_lab.wait_states(own_lab.send_many("lab.work", 3, 0.0), 30)
    assert "guest:guest" not in worker.text()
    worker.stop()
    assert worker.wait_exit() == 0


def test_a_worker_stops_in_time_while_its_broker_is_frozen(own_lab: Lab) -> None:
    server = server_of(own_lab)
    worker = own_lab.worker("-c", "1")
    own_lab.wait_states(own_lab.send_many("lab.work", 3, 0.0))
    server.freeze()
    try:
        began = time.monotonic()
        worker.stop()
        worker.wait_exit(30)
        assert time.monotonic() - began < 25
    finally:
        server.thaw()


@pytest.mark.parametrize("task", ["lab.work", "lab.work_late"])
def test_outcomes_wait_for_a_store_that_is_away_while_tasks_end(
    rabbit_server: RabbitAddress, own_redis: RedisServer, open_lab: Opener, task: str
) -> None:
    lab = open_lab(on_rabbitmq(rabbit_server, rabbit_server.fresh_url(), own_redis.url))
    worker = lab.worker("-c", "1")
    consumer = worker.consumer()
    lab.wait_states(lab.send_many(task, 3, 0.0))
    ids = lab.send_many(task, 5, 1.0)
    lab.wait_started(ids[0])
    with lab.cut("results"):
        own_redis.kill()
        wait(lambda: ids[0] in lab.journal.ids("end"), 10, "the end of a task")
        wait(lambda: "Cannot store" in worker.text(), 15, "the complaint")
        own_redis.start()
        finals = lab.wait_states(ids, 40)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert lab.prove(Rules(late=task.endswith("late"))).duplicated == 0
    assert worker.consumer() == consumer
