from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import RabbitServer
from tests.servers.rabbit_server import RabbitAddress
from umbel import Umbel, chain, group
from umbel.core.errors import NotSupportedError, OperationalError
from umbel.core.head_reader import reply_to_of
from umbel.core.message import Delivery, Message, Part, Record
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease, Store

NOW = 1_700_000_000.0


class Client:
    """A process that asks for results."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        assert self.engine.store is not None
        assert self.engine.broker is not None
        self.store: Store = self.engine.store

    def ask(self, queue: str) -> None:
        """Say where results go, and publish something, after which that place exists."""
        assert self.engine.replies is not None
        assert self.engine.broker is not None
        self.engine.replies(queue, 86_400.0)
        self.engine.broker.publish([Message("x", "t", "q", b'{"headers":{},"properties":{}}', b"[]")], NOW)

    def until(self, *ids: str, seconds: float = 10.0) -> dict[str, Record]:
        """Wait for results."""
        watch = self.store.watch()
        watch.add(ids)
        until = time.monotonic() + seconds
        while len(found := self.store.get(ids, NOW)) < len(ids) and time.monotonic() < until:
            watch.wait(0.5)
        watch.close()
        return found


@pytest.fixture
def client(rabbit_url: str) -> Iterator[Client]:
    client = Client(rabbit_url)
    yield client
    client.engine.close()


@pytest.fixture
def worker(rabbit_url: str) -> Iterator[Store]:
    engine = open_engine(rabbit_url)
    assert engine.store is not None
    yield engine.store
    engine.close()


def record(id_: str, state: str = "SUCCESS", to: str = "me") -> Record:
    return Record(id_, state, b'{"status": "%s", "task_id": "%s"}' % (state.encode(), id_.encode()), reply_to=to)


def test_results_come_to_whoever_asked_and_to_nobody_else(client: Client, worker: Store, rabbit_url: str) -> None:
    other = Client(rabbit_url)
    client.ask("me")
    other.ask("other")
    assert worker.put([record("a"), record("b"), record("c", to="other"), record("d", to="gone")], NOW) == []
    found = client.until("a", "b")
    assert {id_: (got.state, got.meta) for id_, got in found.items()} == {
        id_: ("SUCCESS", record(id_).meta) for id_ in ("a", "b")
    }
    assert other.until("c").keys() == {"c"}
    assert client.store.get(["c", "d"], NOW) == {}
    client.store.forget(["a"])
    assert client.store.get(["a", "b"], NOW).keys() == {"b"}
    other.engine.close()


def test_the_newest_state_counts_and_a_final_one_stays(client: Client, worker: Store) -> None:
    client.ask("me")
    worker.put([record("a", "STARTED"), record("a", "RETRY"), record("a"), record("a", "FAILURE"), record("z")], NOW)
    assert client.until("z")
    assert client.store.get(["a"], NOW)["a"].state == "SUCCESS"


def test_a_result_that_nobody_asked_for_is_dropped(worker: Store) -> None:
    assert worker.put([Record("a", "SUCCESS", b"{}")], NOW) == []


def test_a_watch_ends_when_the_result_arrives_and_when_it_is_woken(client: Client, worker: Store) -> None:
    client.ask("me")
    watch = client.store.watch()
    watch.add(["a"])
    assert watch.wait(0.05) is False
    threading.Timer(0.1, worker.put, ([record("a")], NOW)).start()
    began = time.monotonic()
    while not watch.wait(10.0):
        assert time.monotonic() - began < 10
    assert client.store.get(["a"], NOW).keys() == {"a"}
    threading.Timer(0.1, watch.wake).start()
    began = time.monotonic()
    assert watch.wait(10.0) is False
    assert time.monotonic() - began < 5
    watch.close()


def test_the_queues_go_with_their_client(client: Client, worker: Store, rabbit_url: str) -> None:
    client.ask("me")
    worker.put([record("a")], NOW)
    assert client.until("a")
    assert is_there(rabbit_url, "me")
    client.engine.close()
    assert not is_there(rabbit_url, "me")


def is_there(url: str, queue: str) -> bool:
    engine = open_engine(url)
    assert engine.broker is not None
    try:
        engine.broker._broker._with_link(_passive, queue)  # type: ignore[attr-defined]
    except OperationalError as error:
        assert "404" in str(error) or "no queue" in str(error) or "NOT_FOUND" in str(error)
        return False
    finally:
        engine.close()
    return True


def _passive(link: object, name: str) -> None:
    with link.questions("look") as channel:  # type: ignore[attr-defined]
        channel.queue_declare(name, passive=True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.join([Part("g", 0, b"")], NOW),
        lambda store: store.expect({"g": 1}, NOW),
        lambda store: store.confirm(["g"]),
        lambda store: store.joined(["g"]),
        lambda store: store.forget_groups(["g"]),
        lambda store: store.grow("g", 1, NOW),
        lambda store: store.put_plans({"key": b""}, NOW),
        lambda store: store.take_plans(["key"], NOW, 0.0),
        lambda store: store.save_group("g", b"", NOW, 0.0),
        lambda store: store.revoke([record("a")], NOW),
    ],
)
def test_what_messages_cannot_do_is_refused_with_what_to_do_instead(
    worker: Store, ask: Callable[[Store], object]
) -> None:
    with pytest.raises(NotSupportedError, match="result_backend"):
        ask(worker)


def test_questions_about_what_messages_cannot_keep_are_answered(worker: Store) -> None:
    assert worker.revoked(["a"]) == set()
    assert worker.unconfirmed(NOW) == []
    assert worker.saved_group("g", NOW) is None
    worker.delete_group("g")


def test_an_app_with_rpc_results_says_where_they_go(rabbit_url: str, worker: Store) -> None:
    app = Umbel("rpc", broker=rabbit_url, backend="rpc://", set_as_current=False)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2)
    engine = open_engine(rabbit_url)
    assert engine.broker is not None
    (got,) = engine.broker.lease(Lease(("celery",), "w", 1, 30.0), time.time(), 10.0)
    assert reply_to_of(got.head) == app.thread_oid
    meta = b'{"status":"SUCCESS","result":3,"task_id":"%s","traceback":null,"children":[]}' % result.id.encode()
    worker.put([Record(result.id, "SUCCESS", meta, reply_to=reply_to_of(got.head))], time.time())
    assert result.get(timeout=10) == 3
    engine.close()
    app.close()


def test_every_step_of_a_workflow_says_who_has_asked(rabbit_url: str) -> None:
    app = Umbel("steps", broker=rabbit_url, backend="rpc://", set_as_current=False)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    def line() -> Any:
        return chain(add.s(1, 1), add.s(2), add.s(3), app=app)

    line().apply_async()
    group([line(), chain(add.s(1, 1), group([add.s(4), line()]))], app=app).apply_async()
    engine = open_engine(rabbit_url)
    assert engine.broker is not None
    taken: list[Delivery] = []
    while len(taken) < 3:
        more = engine.broker.lease(Lease(("celery",), "w", 9, 30.0), time.time(), 10.0)
        assert more
        taken += more
    for delivery in taken:
        text = delivery.body.decode()
        assert text.count(f'"{add.name}"') == text.count(f'"reply_to":"{app.thread_oid}"') >= 2
    engine.close()
    app.close()


@pytest.fixture
def app(rabbit_url: str) -> Iterator[Umbel]:
    """An app that says nothing of results."""
    app = Umbel("implied", broker=rabbit_url, set_as_current=False)
    yield app
    app.close()


def test_all_threads_of_a_process_share_one_queue_until_the_app_is_closed(app: Umbel, rabbit_url: str) -> None:
    names = [app.thread_oid]
    thread = threading.Thread(target=lambda: names.append(app.thread_oid))
    thread.start()
    thread.join(10)
    app.send_task("one")
    assert names == [names[0]] * 2
    assert is_there(rabbit_url, names[0])
    app.close()
    assert not is_there(rabbit_url, names[0])
    app.send_task("two")
    assert app.thread_oid != names[0]
    assert is_there(rabbit_url, app.thread_oid)


def test_of_results_that_nobody_reads_the_newest_are_kept(client: Client, worker: Store) -> None:
    assert client.engine.replies is not None
    client.engine.replies("few", 60.0, most=3)  # type: ignore[call-arg]
    client.ask("me")
    ids = [f"id-{number}" for number in range(6)]
    worker.put([record(id_, to="few") for id_ in ids], NOW)
    assert client.until(*ids[3:]).keys() == set(ids[3:])
    assert client.store.get(ids, NOW).keys() == set(ids[3:])


def test_a_queue_that_went_unused_is_made_again_when_the_next_task_is_sent(
    app: Umbel, rabbit_server: RabbitAddress, rabbit_url: str, wait_until: Callable[..., None]
) -> None:
    def queues() -> str:
        return rabbit_server.evaluate(f'rabbit_amqqueue:list_names(<<"{rabbit_url.rpartition("/")[2]}">>).')

    app.conf.result_expires = 1
    app.send_task("one")
    name = app.thread_oid
    assert name in queues()
    wait_until(lambda: name not in queues(), seconds=15, what="the queue to expire")
    app.send_task("two")
    assert app.thread_oid == name
    assert name in queues()


def test_a_process_that_exits_takes_its_queue_along(rabbit_url: str) -> None:
    program = (
        "from umbel import Umbel\n"
        f"app = Umbel('short', broker={rabbit_url!r})\n"
        "app.send_task('one')\n"
        "print(app.thread_oid)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert len(done.stdout.strip()) == 36
    assert not is_there(rabbit_url, done.stdout.strip())


def test_without_revocations_a_task_can_still_be_terminated(app: Umbel) -> None:
    with pytest.raises(NotSupportedError, match="result_backend"):
        app.control.revoke("some-id")
    app.control.revoke("some-id", terminate=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_asks_for_itself(rabbit_url: str) -> None:
    app = Umbel("rpc", broker=rabbit_url, backend="rpc://", set_as_current=False)
    mine = app.thread_oid
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, app.thread_oid.encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert theirs
    assert theirs != mine == app.thread_oid
    app.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_results_survive_a_cut_and_a_restart_of_the_server(rabbit_installed: None) -> None:
    with RabbitServer() as server:
        client, engine = Client(server.url), open_engine(server.url)
        assert engine.store is not None
        client.ask("me")
        engine.store.put([record("a")], NOW)
        assert client.until("a")
        engine.store.put([record("b")], NOW)
        server.restart()
        for _ in range(200):
            try:
                if client.until("b", seconds=0.5):
                    break
            except OperationalError:
                continue
        assert client.store.get(["a", "b"], NOW).keys() == {"a", "b"}
        client.engine.close()
        engine.close()
