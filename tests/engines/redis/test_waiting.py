"""Consumers and clients that wait: what is kept for them meanwhile, and in how few steps they get it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import RedisServer
from umbel.app.waiting import close_waiter, waiter_of
from umbel.core.message import Record
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.engines.redis.connection import Client
from umbel.engines.redis.location import locate
from umbel.engines.redis.store import RedisStore
from umbel.testing.conformance_parts import ids, message

QUEUES = ("q", "r")
ME = Lease(QUEUES, "me", 100, 30.0, again=True)
OTHER = Lease(QUEUES, "other", 100, 30.0)


@pytest.fixture
def server(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def engine(server: RedisServer) -> Iterator[Engine]:
    engine = open_engine(server.url)
    yield engine
    engine.close()


def lease(engine: Engine, wanted: Lease, wait: float = 0.0) -> list[str]:
    assert engine.broker is not None
    return ids(engine.broker.lease(wanted, time.time(), wait))


def publish(engine: Engine, id_: str, queue: str = "q") -> None:
    assert engine.broker is not None
    assert engine.broker.publish([message(id_, queue=queue)], time.time()) == []


def calls(server: RedisServer, command: str) -> int:
    """How often the server has carried out a command."""
    lines = str(server.ask("INFO", "commandstats")).split("\n")
    found = [line for line in lines if line.startswith(f"cmdstat_{command}:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


def wait_for_blocked(server: RedisServer, wait_until: Callable[..., None]) -> None:
    wait_until(lambda: "blocked_clients:8" in str(server.ask("INFO", "clients")), what="8 connections that wait")


def lease_while_waiting(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None], id_: str, queue: str = "q"
) -> list[str]:
    """Lease with a wait, and publish once every list is waited for."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(lease(engine, ME, 20.0)))
    thread.start()
    wait_for_blocked(server, wait_until)
    publish(engine, id_, queue)
    thread.join(20)
    return found


def test_a_message_that_comes_between_two_calls_is_kept_for_whoever_comes_back(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "a") == ["a"]
    publish(engine, "b", "r")
    assert lease(engine, OTHER) == []
    assert lease(engine, ME, 5.0) == ["b"]


def test_who_wants_nothing_more_leaves_what_has_come_meanwhile_to_others(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "a") == ["a"]
    publish(engine, "b", "r")
    assert lease(engine, ME._replace(limit=0, again=False)) == []
    publish(engine, "c")
    assert sorted(lease(engine, OTHER)) == ["b", "c"]


def test_who_got_all_that_it_wanted_keeps_nothing(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(lease(engine, ME._replace(limit=1), 20.0)))
    thread.start()
    wait_for_blocked(server, wait_until)
    publish(engine, "a")
    thread.join(20)
    assert found == ["a"]
    publish(engine, "b")
    assert lease(engine, OTHER) == ["b"]


def test_who_reads_other_queues_leaves_what_has_come_in_the_former_ones(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "a") == ["a"]
    publish(engine, "b", "r")
    assert lease(engine, ME._replace(queues=("q",))) == []
    assert lease(engine, OTHER) == ["b"]


def test_what_a_dead_owner_kept_is_next_for_the_others(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "a") == ["a"]
    publish(engine, "b")
    assert engine.broker is not None
    assert ids(engine.broker.recover(OTHER._replace(dead=("me",)), time.time())) == ["a"]
    assert lease(engine, OTHER) == ["b"]


def test_a_delay_that_passes_between_two_calls_is_not_waited_for(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "a") == ["a"]
    assert engine.broker is not None
    engine.broker.publish([message("late", due=time.time() + 0.3)], time.time())
    began = time.monotonic()
    assert lease(engine, ME, 20.0) == ["late"]
    assert time.monotonic() - began < 10


def test_one_message_at_a_time_is_one_script_and_one_new_wait_each(
    engine: Engine, server: RedisServer, wait_until: Callable[..., None]
) -> None:
    assert lease_while_waiting(engine, server, wait_until, "first") == ["first"]
    server.ask("CONFIG", "RESETSTAT")
    for number in range(20):
        assert lease_while_waiting(engine, server, wait_until, f"{number}") == [f"{number}"]
    assert calls(server, "evalsha") == 20
    assert calls(server, "blmove") == 20
    assert calls(server, "client|unblock") == 0


# --- results -------------------------------------------------------------------------------------------------------


def done(id_: str) -> Record:
    return Record(id_, "SUCCESS", b'{"status": "SUCCESS", "result": 1}')


@pytest.mark.parametrize("rights", ["+@all", "+@all -hello"])
def test_a_result_is_waited_for_whether_the_server_speaks_resp3_or_not(server: RedisServer, rights: str) -> None:
    server.ask("ACL", "SETUSER", "me", "on", ">pw", "~*", "&*", *rights.split())
    client = Client(locate(f"redis://me:pw@127.0.0.1:{server.port}/0", {}))
    store: Any = RedisStore(client)
    waiter = waiter_of(store)
    store.put([done("early")], time.time())
    assert set(waiter.wait(["early", "never"], 0.05)) == {"early"}  # connected now
    server.ask("CONFIG", "RESETSTAT")
    for number in range(20):
        writer = threading.Thread(target=store.put, args=([done(f"{number}")], time.time()))
        writer.start()
        assert set(waiter.wait([f"{number}"], 10)) == {f"{number}"}
        writer.join(10)
    if rights == "+@all":
        # One look each, in the same packet as the subscription.
        assert calls(server, "subscribe") == calls(server, "mget") == 20
        assert calls(server, "exists") == 0
    assert set(waiter.wait(["early"], 0)) == {"early"}
    close_waiter(store)
    client.close()


def test_channels_of_results_that_nobody_waits_for_any_more_are_left(
    server: RedisServer, wait_until: Callable[..., None]
) -> None:
    client = Client(locate(server.url, {}))
    store: Any = RedisStore(client)
    waiter = waiter_of(store)
    for number in range(5):
        assert waiter.wait([f"{number}"], 0.05) == {}
    assert len(client.call("PUBSUB", "CHANNELS")) <= 2
    watch = store.watch()
    watch.add([f"w{number}" for number in range(300)])
    assert watch.wait(0.05) is False
    watch.discard([f"w{number}" for number in range(300)])
    wait_until(lambda: len(client.call("PUBSUB", "CHANNELS")) <= 2, what="channels that are left")
    watch.close()
    close_waiter(store)
    client.close()
