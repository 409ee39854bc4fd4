from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers import RedisServer
from tests.servers.install import program
from tests.servers.process import Server
from umbel.core.message import Record
from umbel.engines.redis.connection import Client
from umbel.engines.redis.failures import RedisFailure
from umbel.engines.redis.location import locate
from umbel.engines.redis.store import RedisStore

WaitUntil = Callable[..., None]
NOW = 1_700_000_000.0


class Sentinel(Server):
    """One sentinel that watches `master` and decides alone."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self.settings = self.folder / "sentinel.conf"
        self.settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nrequirepass guard\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel auth-pass main secret\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 2000\n"
        )

    def command(self) -> list[str]:
        """What to run."""
        return [program("redis-server") or "redis-server", str(self.settings), "--sentinel"]

    def answers(self) -> bool:
        """Tell whether it knows the replica: before that it could not make it the master."""
        return replicas_known(self) == 1


def replicas_known(sentinel: Sentinel) -> int:
    client = Client(locate(f"redis://:guard@127.0.0.1:{sentinel.port}/0", {}))
    try:
        return len(client.call("SENTINEL", "REPLICAS", "main"))
    except RedisFailure:
        return 0
    finally:
        client.close()


@pytest.fixture
def master(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer(requirepass="secret", masterauth="secret", repl_diskless_sync_delay=0) as server:
        yield server


@pytest.fixture
def replica(master: RedisServer, wait_until: WaitUntil) -> Iterator[RedisServer]:
    settings = {"requirepass": "secret", "masterauth": "secret", "replicaof": f"127.0.0.1 {master.port}"}
    with RedisServer(**settings) as server:
        wait_until(lambda: "master_link_status:up" in server.ask("INFO", "replication"), what="the first copy")
        yield server


@pytest.fixture
def sentinel(master: RedisServer, replica: RedisServer) -> Iterator[Sentinel]:
    with Sentinel(master) as sentinel:
        yield sentinel


def url(*sentinels: Sentinel, password: str = "secret") -> str:
    return ";".join(f"sentinel://:{password}@127.0.0.1:{sentinel.port}/2" for sentinel in sentinels)


OPTIONS = {"master_name": "main", "sentinel_kwargs": {"password": "guard"}, "socket_connect_timeout": 1}


def test_after_the_master_was_killed_the_next_one_is_found(
    master: RedisServer, replica: RedisServer, sentinel: Sentinel, wait_until: WaitUntil
) -> None:
    client = Client(locate(f"sentinel://127.0.0.1:1;{url(sentinel)}", OPTIONS))
    store = RedisStore(client)
    watch = store.watch()
    watch.add(["a", "b"])
    assert store.put([Record("a", "SUCCESS", b'{"status": "SUCCESS"}')], NOW) == []
    assert watch.wait(5) is True
    assert client.call("WAIT", 1, 5000) == 1
    assert client.call("CONFIG", "GET", "port")[1] == str(master.port).encode()
    master.kill()

    def works_again() -> bool:
        try:
            return store.put([Record("b", "SUCCESS", b'{"status": "SUCCESS"}')], NOW) in ([], ["b"])
        except RedisFailure as error:
            assert not error.misconfigured
            return False

    wait_until(works_again, seconds=30, what="the replica to become the master")
    assert client.call("CONFIG", "GET", "port")[1] == str(replica.port).encode()
    assert store.get(["a", "b"], NOW).keys() == {"a", "b"}

    def is_told() -> bool:
        try:
            return watch.wait(1.0)
        except RedisFailure:
            return False

    wait_until(is_told, seconds=10, what="the watch to find the new master")
    watch.close()
    client.close()


def is_replica(server: RedisServer) -> bool:
    """Tell whether it is one by now; whoever becomes one ends its connections."""
    try:
        return "role:slave" in server.ask("INFO", "replication")
    except ConnectionError:
        return False


@pytest.mark.slow  # a sentinel looks at its replicas every ten seconds
def test_a_master_that_became_a_replica_is_left_for_the_new_one(
    master: RedisServer, replica: RedisServer, sentinel: Sentinel, wait_until: WaitUntil
) -> None:
    client = Client(locate(url(sentinel), OPTIONS))
    client.call("SET", "a", 1)
    sentinel_client = Client(locate(f"redis://:guard@127.0.0.1:{sentinel.port}/0", {}))

    def is_ordered() -> bool:
        try:
            return sentinel_client.call("SENTINEL", "FAILOVER", "main") == b"OK"
        except RedisFailure as error:
            assert "NOGOODSLAVE" in str(error)
            return False

    wait_until(is_ordered, seconds=30, what="the sentinel to trust the replica")
    wait_until(lambda: is_replica(master), seconds=30, what="the master to step down")

    def goes_on() -> bool:
        try:
            return client.call("SET", "a", 2) == b"OK"
        except RedisFailure:
            return False

    wait_until(goes_on, seconds=10, what="the client to find the new master")
    assert client.call("CONFIG", "GET", "port")[1] == str(replica.port).encode()
    sentinel_client.close()
    client.close()


def test_what_sentinels_cannot_tell_is_told_with_what_to_do(sentinel: Sentinel) -> None:
    cases = [
        ({"master_name": "other"}, "check master_name", True),
        ({"sentinel_kwargs": {"password": "wrong"}}, "refuses user name or password", True),
        ({"sentinel_kwargs": {}}, "asks for a password", True),
        ({"min_other_sentinels": 2}, "min_other_sentinels", False),
    ]
    for options, words, blame in cases:
        client = Client(locate(url(sentinel), {**OPTIONS, **options}))
        with pytest.raises(RedisFailure, match=words) as caught:
            client.call("PING")
        assert caught.value.misconfigured is blame
        assert "secret" not in str(caught.value)
        client.close()


def test_a_sentinel_that_says_nothing_costs_its_share_of_the_time_once(sentinel: Sentinel) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        addresses = f"sentinel://127.0.0.1:{silent.getsockname()[1]};{url(sentinel)}"
        client = Client(locate(addresses, {**OPTIONS, "socket_connect_timeout": 1}))
        began = time.monotonic()
        assert client.call("PING") == b"PONG"
        assert 0.4 < time.monotonic() - began < 3
        client.close()
        began = time.monotonic()
        assert client.call("PING") == b"PONG"
        assert time.monotonic() - began < 0.4
        client.close()
