from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.servers import RedisServer
from umbel.engines.redis.bus import RedisBus
from umbel.engines.redis.connection import Client
from umbel.engines.redis.failures import Unreachable
from umbel.engines.redis.location import locate

NOW = 1_700_000_000.0


@pytest.fixture
def server(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_two_prefixes_do_not_hear_each_other(redis_url: str) -> None:
    one, two = (Client(locate(redis_url, {"global_keyprefix": prefix})) for prefix in ("a", "b"))
    ears = [RedisBus(client).listen(["t"]) for client in (one, two)]
    RedisBus(one).send("t", [b"", b"\xff"], NOW)
    assert ears[0].receive(5) == [("t", b""), ("t", b"\xff")]
    assert ears[1].receive(0.02) == []
    for ear in ears:
        ear.close()
    for client in (one, two):
        client.close()


def test_a_listener_connects_again_after_its_connection_was_cut(
    redis_url: str, wait_until: Callable[..., None]
) -> None:
    client = Client(locate(redis_url, {}))
    bus = RedisBus(client)
    ear = bus.listen(["t"])
    client.call("CLIENT", "KILL", "TYPE", "pubsub")
    with pytest.raises(Unreachable):
        ear.receive(5)
    heard: list[tuple[str, bytes]] = []

    def send_and_hear() -> bool:
        bus.send("t", [b"again"], NOW)
        heard.extend(ear.receive(0.1))
        return bool(heard)

    wait_until(send_and_hear, what="the listener to hear again")
    assert heard[0] == ("t", b"again")
    ear.close()
    client.close()


def test_listening_to_a_server_that_is_away_is_an_error_and_nothing_hangs(server: RedisServer) -> None:
    client = Client(locate(server.url, {"socket_timeout": 0.3}))
    bus = RedisBus(client)
    server.freeze()
    try:
        with pytest.raises(Unreachable):
            bus.listen(["t"])
        with pytest.raises(Unreachable):
            bus.send("t", [b"x"], NOW)
    finally:
        server.thaw()
    client.close()


def test_a_wake_before_the_wait_ends_it_once(redis_url: str) -> None:
    client = Client(locate(redis_url, {}))
    ear = RedisBus(client).listen(["t"])
    ear.wake()
    ear.wake()
    assert ear.receive(30) == []
    sender = threading.Timer(0.05, RedisBus(client).send, ("t", [b"x"], NOW))
    sender.start()
    assert ear.receive(30) == [("t", b"x")]
    sender.join()
    ear.close()
    client.close()
