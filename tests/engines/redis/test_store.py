from __future__ import annotations

import json
import os
import pickle
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tests.servers import RedisServer
from umbel.core.message import Part, Record
from umbel.engines.redis.connection import NOTHING, Client
from umbel.engines.redis.failures import Unreachable
from umbel.engines.redis.location import locate
from umbel.engines.redis.store import RedisStore, Revocations

NOW = 1_700_000_000.0


def meta(state: str, result: Any = None, **more: Any) -> bytes:
    return json.dumps({"status": state, "result": result, "traceback": None, "children": [], **more}).encode()


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    client = Client(locate(redis_url, {"global_keyprefix": "app"}))
    yield client
    client.close()


@pytest.fixture
def store(client: Client) -> RedisStore:
    return RedisStore(client)


@pytest.fixture
def server(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_a_result_is_kept_and_told_as_celery_does_it(client: Client, store: RedisStore) -> None:
    listener = client.open()
    listener.send("SUBSCRIBE", "app_celery-task-meta-a")
    listener.receive(5)
    data = meta("SUCCESS", 3)
    assert store.put([Record("a", "SUCCESS", data, NOW + 86400)], NOW) == []
    assert client.call("GET", "app_celery-task-meta-a") == data
    assert 86_390 < client.call("TTL", "app_celery-task-meta-a") <= 86_400
    assert listener.receive(5) == [b"message", b"app_celery-task-meta-a", data]
    assert store.put([Record("a", "FAILURE", meta("FAILURE"))], NOW) == ["a"]
    assert listener.receive(0.02) is NOTHING
    store.put([Record("b", "STARTED", meta("STARTED"))], NOW)
    assert client.call("TTL", "app_celery-task-meta-b") == -1
    listener.close()


@pytest.mark.parametrize(
    ("state", "written"),
    [
        ("SUCCESS", meta("SUCCESS", "x" * 500)),
        ("FAILURE", json.dumps({"task_id": "a", "result": {"status": "no"}, "status": "FAILURE"}).encode()),
        ("PROGRESS", b'{"status":"PROGRESS","result":{}}'),
        ("RETRY", b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(meta("RETRY"))),
        ("SUCCESS", pickle.dumps({"status": "SUCCESS", "result": b"x"})),
        ("FAILURE", pickle.dumps({"status": "FAILURE", "result": ValueError()}, protocol=2)),
        ("SUCCESS", b"children: []\nstatus: SUCCESS\nresult: 1\n"),
        ("STARTED", msgspec.msgpack.encode({"result": 1, "status": "STARTED"})),
        ("", b"\x00celery-compressed\x00application/x-gzip\x00broken"),
        ("", b"\xff\xfe"),
        ("", b"{"),
    ],
)
def test_what_celery_wrote_is_read_whatever_its_form(
    client: Client, store: RedisStore, state: str, written: bytes
) -> None:
    client.call("SET", "app_celery-task-meta-a", written)
    assert store.get(["a", "b"], NOW) == {"a": Record("a", state, written, 0.0)}


@pytest.mark.parametrize(
    "stored",
    [
        meta("SUCCESS"),
        b'{"task_id": "a", "status" : "REVOKED"}',
        b'{"result": {"deep": [' + b"[" * 50 + b"]" * 50 + b']}, "status": "FAILURE"}',
    ],
)
def test_a_terminal_state_of_celery_stays(client: Client, store: RedisStore, stored: bytes) -> None:
    client.call("SET", "app_celery-task-meta-a", stored)
    assert store.put([Record("a", "STARTED", meta("STARTED"))], NOW) == ["a"]
    assert client.call("GET", "app_celery-task-meta-a") == stored


def test_a_terminal_state_that_redis_cannot_read_stays_until_it_is_forgotten(client: Client, store: RedisStore) -> None:
    packed = b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(meta("SUCCESS", 1))
    started = b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(meta("STARTED"))
    assert store.put([Record("a", "STARTED", started), Record("a", "SUCCESS", packed, NOW + 60)], NOW) == []
    assert store.put([Record("a", "FAILURE", meta("FAILURE"))], NOW) == ["a"]
    store.forget(["a"])
    assert store.put([Record("a", "FAILURE", packed)], NOW) == []
    client.call("DEL", "app_celery-task-meta-a")  # as Celery forgets
    assert store.put([Record("a", "STARTED", started), Record("a", "SUCCESS", packed)], NOW) == []


def test_many_records_are_stored_and_read_in_one_go(store: RedisStore) -> None:
    records = [Record(f"{n}", "SUCCESS", meta("SUCCESS", n)) for n in range(2500)]
    assert store.put(records, NOW) == []
    got = store.get([record.id for record in records], NOW)
    assert [got[record.id].meta for record in records] == [record.meta for record in records]
    assert store.put(records[2400:], NOW) == [record.id for record in records[2400:]]
    store.forget([record.id for record in records])
    assert store.get([record.id for record in records], NOW) == {}


def test_a_lease_that_saw_no_revocation_spares_one_look(client: Client) -> None:
    revocations = Revocations()
    store = RedisStore(client, revocations)
    store.revoke([Record("a", "REVOKED", b""), Record("b", "REVOKED", b"", NOW + 60)], NOW)
    assert store.revoked(["a", "b", "c"]) == {"a", "b"}
    revocations.saw(False)
    assert store.revoked(["a"]) == set()
    assert store.revoked(["a"]) == {"a"}
    revocations.saw(True)
    assert store.revoked(["a"]) == {"a"}
    others: list[set[str]] = []
    revocations.saw(False)
    thread = threading.Thread(target=lambda: others.append(store.revoked(["a"])))
    thread.start()
    thread.join(10)
    assert others == [{"a"}]


def test_a_large_group_is_complete_once_and_its_payloads_are_in_order(store: RedisStore) -> None:
    parts = [Part("g", index, os.urandom(3), None) for index in range(3000)]
    assert store.join(parts, NOW) == []
    (joined,) = store.expect({"g": 3000}, NOW)
    assert joined.payloads == tuple(part.payload for part in parts)
    store.confirm(["g"])
    assert store.expect({"g": 3000}, NOW) == []
    assert store.joined(["g"]) == {"g": joined.payloads}


def test_what_a_watch_was_told_is_read_once_without_asking_and_never_after_it_was_forgotten(
    client: Client, store: RedisStore
) -> None:
    watch = store.watch()
    watch.add(["a", "b", "c"])
    assert watch.wait(0.05) is False
    records = [
        Record("a", "SUCCESS", meta("SUCCESS", 1)),
        Record("b", "SUCCESS", meta("SUCCESS", 2)),
        Record("c", "STARTED", meta("STARTED")),
    ]
    RedisStore(client).put(records, NOW)
    while len(told := store._told) < 2:
        assert watch.wait(5) is True
    assert told.keys() == {"a", "b"}
    assert store.get(["a", "c", "d"], NOW) == {"a": records[0], "c": records[2]}
    store.forget(["a", "b"])
    assert store.get(["a", "b"], NOW) == {}
    watch.close()


def test_a_watch_connects_again_and_tells_what_was_stored_meanwhile(
    client: Client, store: RedisStore, wait_until: Callable[..., None]
) -> None:
    watch = store.watch()
    watch.add(["a", "b"])
    assert watch.wait(0.05) is False
    client.call("CLIENT", "KILL", "TYPE", "pubsub")
    store.put([Record("b", "SUCCESS", meta("SUCCESS"))], NOW)
    seen: list[bool] = []

    def look() -> bool:
        try:
            seen.append(watch.wait(1.0))
        except Unreachable:
            return False
        return seen[-1]

    wait_until(look, what="a hint after the new connection")
    assert watch.wait(0.01) is False
    watch.close()


def test_a_watch_that_is_told_of_more_ids_while_its_connection_is_broken_finds_them_later(
    client: Client, store: RedisStore, wait_until: Callable[..., None]
) -> None:
    watch = store.watch()
    watch.add(["a"])
    assert watch.wait(0.05) is False
    client.call("CLIENT", "KILL", "TYPE", "pubsub")
    for n in range(20):  # the first may still be sent, those after it meet a closed connection
        watch.add([f"{n}"])
    store.put([Record("19", "SUCCESS", meta("SUCCESS"))], NOW)

    def look() -> bool:
        try:
            return watch.wait(1.0)
        except Unreachable:
            return False

    wait_until(look, what="a hint after the new connection")
    watch.close()


def test_a_watch_whose_server_is_away_says_so_and_recovers(
    server: RedisServer, wait_until: Callable[..., None]
) -> None:
    client = Client(locate(server.url, {}))
    store = RedisStore(client)
    watch = store.watch()
    watch.add(["a"])
    assert watch.wait(0.05) is False
    server.kill()
    with pytest.raises(Unreachable):
        watch.wait(5)
    watch.add(["b"])
    server.start()
    assert watch.wait(0.05) is False
    store.put([Record("b", "SUCCESS", meta("SUCCESS"))], NOW)
    assert watch.wait(5) is True
    watch.close()
    client.close()


def test_a_silent_server_is_noticed_by_a_watch(server: RedisServer) -> None:
    client = Client(locate(server.url, {"health_check_interval": 0.1, "socket_timeout": 0.2}))
    watch = RedisStore(client).watch()
    watch.add(["a"])
    assert watch.wait(0.3) is False  # the server answers the signs of life that it is asked for
    server.freeze()
    try:
        with pytest.raises(Unreachable, match="did not answer"):
            watch.wait(5)
    finally:
        server.thaw()
    watch.close()
    client.close()


def test_a_forked_process_watches_for_itself(client: Client, store: RedisStore) -> None:
    watch = store.watch()
    watch.add(["a"])
    assert watch.wait(0.05) is False
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"r")
            os.write(writing, b"1" if watch.wait(5) else b"0")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb", 0) as pipe:
        assert pipe.read(1) == b"r"
        store.put([Record("a", "SUCCESS", meta("SUCCESS"))], NOW)
        assert watch.wait(5) is True
        assert pipe.read(1) == b"1"
    os.waitpid(child, 0)
    watch.close()
