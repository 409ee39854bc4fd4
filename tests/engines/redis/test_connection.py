from __future__ import annotations

import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from umbel.core.errors import EngineBusy, OperationalError, StorageFull
from umbel.engines.redis.connection import NOTHING, Client, Script
from umbel.engines.redis.failures import RedisBusy, RedisFailure, Unreachable
from umbel.engines.redis.location import locate
from umbel.engines.redis.replies import LargeReplies

WaitUntil = Callable[..., None]


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Callable[..., Client]:
    def make(url: str, **options: Any) -> Client:
        client = Client(locate(url, options))
        request.addfinalizer(client.close)
        return client

    return make


@pytest.fixture
def client(redis_url: str, connect: Callable[..., Client]) -> Client:
    return connect(redis_url)


@pytest.fixture
def server(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_commands_take_texts_bytes_and_numbers_and_give_bytes_numbers_and_lists(client: Client) -> None:
    assert client.call("SET", "key", b"\x00\xff") == b"OK"
    assert client.call("GET", b"key") == b"\x00\xff"
    assert client.call("RPUSH", "list", 1, "ü") == 2
    assert client.call("LRANGE", "list", 0, -1) == [b"1", "ü".encode()]
    assert client.call("GET", "none") is None


def test_a_reply_of_many_pieces_is_read_whole(client: Client) -> None:
    value = os.urandom(3_000_000)
    client.call("SET", "large", value)
    assert client.call("GET", "large") == value
    assert client.call("PING") == b"PONG"


def test_large_values_among_small_ones_are_read_as_they_are(client: Client) -> None:
    sizes = [0, 5, 20_000, 65_530, 65_536, 70_000, 300_000, 3, 17_000, 1_000_000, 1]
    values = [b"\r\n$99999999\r\n"[:size] + os.urandom(max(0, size - 14)) for size in sizes]
    client.call("RPUSH", "list", *values)
    client.call("SET", "one", values[6])
    assert client.call("LRANGE", "list", 0, -1) == values
    replies = client.pipeline(
        [("PING",), ("GET", "one"), ("GET", "none"), ("LPUSH", "one", 1), ("LRANGE", "list", 0, -1), ("INCR", "n")]
    )
    assert [*replies[:3], *replies[4:]] == [b"PONG", values[6], None, values, 1]
    assert isinstance(replies[3], RedisFailure)
    nested = "return {{1, redis.call('GET', 'one')}, {}, false, redis.call('LRANGE', 'list', 3, 5), 7}"
    assert client.script(Script("nested", nested), [], []) == [[1, values[6]], [], None, values[3:6], 7]
    assert client.call("PING") == b"PONG"


@pytest.mark.parametrize("seed", range(5))
def test_replies_are_the_same_wherever_their_bytes_are_cut(seed: int) -> None:
    choice = random.Random(seed)
    values: list[Any] = [b"x" * choice.choice([0, 1, 40, 30_000]) for _ in range(40)]
    values[3:3] = [7, None, [], [b"a", [1, b"y" * 20_000], None]]
    coming = bytearray(b"".join(map(resp, values)))

    def receive(room: memoryview) -> int:
        size = min(choice.choice([1, 2, 100, 10_000, 500_000]), len(room), len(coming))
        room[:size] = coming[:size]
        del coming[:size]
        return size

    replies = LargeReplies(b"", receive)
    assert [replies.read() for _ in values] == values
    assert not replies.left


def resp(value: Any) -> bytes:
    """Return a value as Redis sends it."""
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(resp, value))
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"$-1\r\n" if value is None else b":%d\r\n" % value


def test_a_pipeline_is_answered_in_order_with_errors_in_place(client: Client) -> None:
    first, second, third = client.pipeline([("SET", "a", 1), ("LPUSH", "a", 1), ("GET", "a")])
    assert (first, third) == (b"OK", b"1")
    assert isinstance(second, RedisFailure)
    assert (second.code, second.maybe_done) == ("WRONGTYPE", False)
    assert client.pipeline([]) == []
    assert client.pipeline([("INCR", "n")] * 5000)[-1] == 5000


def test_a_script_is_loaded_when_the_server_does_not_know_it(client: Client) -> None:
    script = Script("add", "return {KEYS[1], ARGV[1] + 1}")
    for _ in range(2):
        assert client.script(script, ["key"], [41]) == [b"key", 42]
    client.call("SCRIPT", "FLUSH")
    assert client.script(script, ["key"], [41]) == [b"key", 42]
    with pytest.raises(RedisFailure, match="oops"):
        client.script(Script("bad", "return redis.error_reply('oops')"), [], [])


def test_every_thread_has_a_connection_of_its_own_that_goes_with_it(client: Client, wait_until: WaitUntil) -> None:
    own = client.call("CLIENT", "ID")
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.extend(client.call("CLIENT", "ID") for _ in range(2)))
    thread.start()
    thread.join(10)
    assert len(ids) == 2
    assert ids[0] == ids[1] != own
    wait_until(lambda: client.call("CLIENT", "KILL", "ID", ids[0]) == 0, what="the end of the thread's connection")


def test_a_forked_process_connects_anew_and_leaves_the_parents_connection_alone(client: Client) -> None:
    own = client.call("CLIENT", "ID")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(client.call("CLIENT", "ID")).encode())
            client.close()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = int(pipe.read())
    os.waitpid(child, 0)
    assert found != own
    assert client.call("CLIENT", "ID") == own


def test_an_idle_connection_that_was_closed_meanwhile_is_replaced(
    client: Client, redis_url: str, connect: Callable[..., Client], wait_until: WaitUntil
) -> None:
    own = client.call("CLIENT", "ID")
    other = connect(redis_url)
    other.call("CLIENT", "KILL", "ID", own)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 0.05)
    assert client.call("CLIENT", "ID") > own


def test_what_only_reads_is_asked_again_where_its_connection_has_just_ended(
    client: Client, redis_url: str, connect: Callable[..., Client]
) -> None:
    other = connect(redis_url)
    client.call("SET", "key", 1)
    for _ in range(5):
        other.call("CLIENT", "KILL", "ID", client.call("CLIENT", "ID"))
        assert client.call("GET", "key") == b"1"


def test_a_call_whose_answer_does_not_come_is_over_in_time_and_in_doubt(
    server: RedisServer, connect: Callable[..., Client]
) -> None:
    client = connect(server.url, socket_timeout=0.3)
    client.call("PING")
    server.freeze()
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match=r"within 0\.3 seconds; whether") as caught:
            client.call("INCR", "n")
        assert caught.value.maybe_done
        assert time.monotonic() - began < 2
    finally:
        server.thaw()
    assert client.call("PING") == b"PONG"


def test_a_server_that_went_and_came_back_is_used_again(server: RedisServer, connect: Callable[..., Client]) -> None:
    client = connect(server.url)
    client.call("PING")
    server.kill()
    with pytest.raises(Unreachable):
        client.call("PING")
    with pytest.raises(Unreachable, match="nothing listens") as caught:
        client.call("PING")
    assert not caught.value.maybe_done
    assert not caught.value.misconfigured
    assert isinstance(caught.value, EngineBusy)
    server.start()
    assert client.call("PING") == b"PONG"


def test_a_half_open_connection_is_noticed_before_it_is_used(connect: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=0.2&health_check_interval=0.03"
        seen: list[socket.socket] = []

        def serve() -> None:
            """Answer the greeting of each connection, the first command of the first, and nothing more."""
            for answers in (b"$0\r\n\r\n+PONG\r\n", b"+PONG\r\n"):
                connection, _ = listener.accept()
                seen.append(connection)
                connection.recv(4096)
                connection.sendall(answers)
                connection.recv(4096)
                connection.sendall(b":1\r\n")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        client = connect(url)
        assert client.call("INCR", "n") == 1
        threading.Event().wait(0.1)
        assert client.call("INCR", "n") == 1
        server.join(5)
        for connection in seen:
            connection.close()


def test_a_connection_of_its_own_blocks_and_can_be_unblocked(client: Client) -> None:
    link = client.open()
    link.send("BLPOP", "list", 10)
    assert link.receive(0.02) is NOTHING
    client.call("CLIENT", "UNBLOCK", link.id)
    assert link.receive(5) is None
    link.send("BLPOP", "list", 10)
    client.call("RPUSH", "list", "x")
    assert link.receive(5) == [b"list", b"x"]
    assert link.receive(0) is NOTHING
    client.call("CLIENT", "KILL", "ID", link.id)
    with pytest.raises(Unreachable):
        link.receive(5)
    link.close()


def test_closing_lets_go_of_every_connection_and_the_next_call_opens_one(client: Client) -> None:
    first = client.call("CLIENT", "ID")
    client.close()
    client.close()
    assert client.call("CLIENT", "ID") > first


def test_new_credentials_of_a_provider_are_used_without_a_restart(
    server: RedisServer, connect: Callable[..., Client]
) -> None:
    class Rotating:
        password = "first"

        def get_credentials(self) -> tuple[str, str]:
            return "worker", self.password

    server.ask("ACL", "SETUSER", "worker", "on", ">first", ">second", "allcommands", "allkeys")
    provider = Rotating()
    client = connect(server.url, credential_provider=provider, reauth_check_interval=0)
    assert client.call("ACL", "WHOAMI") == b"worker"
    first = client.call("CLIENT", "ID")
    assert client.call("CLIENT", "ID") == first
    provider.password = "second"
    assert client.call("CLIENT", "ID") > first


def test_connections_carry_the_name_that_was_given(redis_url: str, connect: Callable[..., Client]) -> None:
    assert connect(redis_url, client_name="umbel-test").call("CLIENT", "GETNAME") == b"umbel-test"


def test_a_unix_socket_works_like_any_other_way(server: RedisServer, connect: Callable[..., Client]) -> None:
    client = connect(f"redis+socket://{server.socket_path}?virtual_host=3")
    assert client.call("SET", "a", 1) == b"OK"
    assert connect(server.url_for(3)).call("GET", "a") == b"1"
    server.stop()
    with pytest.raises(Unreachable):
        client.call("PING")
    missing = connect("redis+socket:///nowhere/redis.sock")
    with pytest.raises(Unreachable, match="no such socket"):
        missing.call("PING")


# --- what is wrong, and what the texts say -------------------------------------------------------------------


def failure(client: Client, *command: object) -> RedisFailure:
    with pytest.raises(RedisFailure) as caught:
        client.call(*(command or ("PING",)))
    return caught.value


def test_a_wrong_or_missing_password_is_a_wrong_setting(redis_installed: None, connect: Callable[..., Client]) -> None:
    with RedisServer(requirepass="right") as server:
        place = f"127.0.0.1:{server.port}/0"
        assert connect(server.url).call("PING") == b"PONG"
        missing, wrong = failure(connect(f"redis://{place}")), failure(connect(f"redis://:wrong@{place}"))
        assert "asks for a password" in str(missing)
        assert "refuses user name or password" in str(wrong)
        for error in (missing, wrong):
            assert error.misconfigured
            assert not isinstance(error, EngineBusy)
            assert "wrong@" not in str(error)


def test_a_user_that_may_not_is_told_what_it_needs(server: RedisServer, connect: Callable[..., Client]) -> None:
    server.ask("ACL", "SETUSER", "narrow", "on", ">pw", "~own:*", "+@all")
    client = connect(f"redis://narrow:pw@127.0.0.1:{server.port}/0")
    assert client.call("SET", "own:a", 1) == b"OK"
    error = failure(client, "GET", "other")
    assert error.misconfigured
    assert "ACL SETUSER" in str(error)


def test_a_database_that_does_not_exist_is_named(server: RedisServer, connect: Callable[..., Client]) -> None:
    error = failure(connect(server.url_for(999_999)))
    assert "no database 999999" in str(error)
    assert error.misconfigured


def test_full_memory_is_storage_full(redis_installed: None, connect: Callable[..., Client]) -> None:
    with RedisServer(maxmemory="1mb") as server:
        client = connect(server.url)
        with pytest.raises(StorageFull, match="maxmemory") as caught:
            client.call("LPUSH", "list", "x")
        assert not getattr(caught.value, "maybe_done", True)
        assert not getattr(caught.value, "misconfigured", True)
        assert client.call("DEL", "list") == 0


def test_a_replica_that_only_reads_is_left(server: RedisServer, connect: Callable[..., Client]) -> None:
    client = connect(server.url)
    own = client.call("CLIENT", "ID")
    server.ask("REPLICAOF", "127.0.0.1", "1")
    error = failure(client, "SET", "a", 1)
    assert "read-only replica" in str(error)
    assert not error.maybe_done
    server.ask("REPLICAOF", "NO", "ONE")
    assert client.call("CLIENT", "ID") > own


def test_a_server_held_up_by_a_script_is_busy(redis_installed: None, connect: Callable[..., Client]) -> None:
    with RedisServer(busy_reply_threshold=50) as server:
        hog = connect(server.url).open()
        hog.send("EVAL", "while true do end", 0)
        client = connect(server.url)
        found: list[OperationalError] = []
        deadline = time.monotonic() + 10
        while not found and time.monotonic() < deadline:
            try:
                client.call("GET", "a")
            except OperationalError as error:
                found.append(error)
        assert isinstance(found[0], RedisBusy)
        client.call("SCRIPT", "KILL")
        hog.close()


def test_a_cluster_is_refused(redis_installed: None, connect: Callable[..., Client]) -> None:
    with RedisServer(cluster_enabled="yes") as server:
        error = failure(connect(server.url_for(0)))
        assert "Redis Cluster" in str(error)
        assert error.misconfigured


def test_an_unknown_host_and_a_strange_server_are_told(connect: Callable[..., Client], tmp_path: Path) -> None:
    assert "host is not known" in str(failure(connect("redis://no-such-host.invalid/0")))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert "rediss://" in str(failure(connect(f"redis://127.0.0.1:{port}/0")))
        thread.join(5)


def test_nothing_of_a_closed_client_stays(redis_url: str) -> None:
    client = Client(locate(redis_url, {}))
    client.call("PING")
    client.close()
    gone = weakref.ref(client)
    del client
    assert gone() is None
