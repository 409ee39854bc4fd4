"""What a broken connection must not do: lose what was taken, do something twice, or hide what was done."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import redis

from tests.proxy import Proxy
from tests.servers import RedisServer
from umbel.core.errors import OperationalError, StorageFull
from umbel.core.message import Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.engines.redis.scripts import LEASE
from umbel.testing.conformance_parts import ids, message, record

ME = Lease(("q",), "me", 100, 30.0)


def reply_lost(proxy: Proxy, call: Any) -> None:
    """Carry out a call whose request arrives and whose reply does not."""
    proxy.cut_after(0)
    with pytest.raises(OperationalError):
        call()
    proxy.restore()


def test_a_lease_whose_reply_was_lost_is_returned_by_the_next_call(engine: Engine, proxy: Proxy) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("a"), message("b")], time.time())
    broker.lease(ME._replace(limit=0), time.time())
    reply_lost(proxy, lambda: broker.lease(ME, time.time()))
    got = broker.lease(ME._replace(limit=1), time.time())
    assert ids(got) == ["a", "b"]
    assert broker.settle("me", [Settlement(one.tag, one.token) for one in got], time.time()) == []
    assert broker.depth(["q"], time.time())["q"].leased == 0


def test_a_takeover_whose_reply_was_lost_is_returned_by_the_next_call(engine: Engine, proxy: Proxy) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("a")], time.time())
    (first,) = broker.lease(ME._replace(owner="dead"), time.time())
    broker.start("dead", [(first.tag, first.token, 7)], time.time())
    heir = Lease(("q",), "heir", 100, 30.0, dead=("dead",))
    reply_lost(proxy, lambda: broker.recover(heir, time.time()))
    (taken,) = broker.recover(heir, time.time())
    assert (taken.id, taken.ticket, taken.former_owner, taken.token) == ("a", 7, "dead", 2)
    assert broker.settle("heir", [Settlement(taken.tag, taken.token)], time.time()) == []


def test_a_takeover_between_a_lease_whose_reply_was_lost_and_the_next_hides_nothing(
    engine: Engine, proxy: Proxy, raw: Any
) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("a"), message("b")], time.time())
    broker.lease(ME._replace(owner="dead", limit=1), time.time())
    broker.lease(ME._replace(limit=0), time.time())
    heir = Lease(("q",), ME.owner, 100, 30.0, dead=("dead",))
    reply_lost(proxy, lambda: broker.lease(ME, time.time()))
    assert broker.recover(heir._replace(owner="other", dead=()), time.time()) == []
    reply_lost(proxy, lambda: broker.recover(heir, time.time()))
    assert raw.keys("umbel.held.*") == [b"umbel.held.me\x06\x16q"]
    assert ids(broker.lease(ME, time.time())) == ["b"]
    assert ids(broker.recover(heir, time.time())) == ["a"]


def test_a_lease_that_arrives_after_it_was_given_up_takes_nothing(engine: Engine, proxy: Proxy, raw: Any) -> None:
    broker = engine.broker
    assert broker is not None
    raw.config_set("slowlog-log-slower-than", 0)
    broker.lease(ME._replace(limit=0), time.time())
    # One that took nothing, and one that took something, each carried out once more when others have come after it.
    for sent in ([], [message("a")]):
        broker.publish(sent, time.time())
        raw.slowlog_reset()
        reply_lost(proxy, lambda: broker.lease(ME, time.time()))
        late = leases_of(raw)[-1]
        for _ in range(2):
            assert ids(broker.lease(ME, time.time())) in ([one.id for one in sent], [])
        broker.publish([message("b")], time.time())
        assert raw.execute_command(*late)[2] == []
        assert ids(broker.lease(ME, time.time())) == ["b"]
        assert raw.execute_command(*late)[2] == []


def leases_of(raw: Any) -> list[list[bytes]]:
    """Return the calls that lease, oldest first, as Redis has noted them."""
    commands = [entry["command"].split(b" ") for entry in raw.slowlog_get(100)]
    return [words for words in reversed(commands) if words[:2] == [b"EVALSHA", LEASE.sha.encode()]]


def test_outcomes_whose_reply_was_lost_are_not_told_stale(engine: Engine, proxy: Proxy) -> None:
    broker, atomic = engine.broker, engine.atomic
    assert broker is not None
    assert atomic is not None
    broker.publish([message("a"), message("b"), message("c")], time.time())
    first, second, third = broker.lease(ME, time.time())
    broker.settle("me", [Settlement(second.tag, second.token)], time.time())
    outcomes = [
        Settlement(one.tag, one.token, record=record(one.id, "SUCCESS"), publish=(message(f"after {one.id}"),))
        for one in (first, second)
    ]
    reply_lost(proxy, lambda: atomic.commit("me", outcomes, time.time()))
    outcomes.append(Settlement(third.tag, third.token))
    assert atomic.commit("me", outcomes, time.time()) == [second.tag]
    assert ids(broker.lease(ME, time.time())) == ["after a"]


@pytest.mark.parametrize("revoked", [False, True])
def test_a_follow_up_that_was_gone_on_with_is_known_although_the_reply_was_lost(
    engine: Engine, proxy: Proxy, revoked: bool
) -> None:
    broker, follow_ups, store = engine.broker, engine.follow_ups, engine.store
    assert broker is not None
    assert follow_ups is not None
    assert store is not None
    broker.publish([message("a")], time.time())
    (first,) = broker.lease(ME, time.time())
    if revoked:
        store.revoke([record("anything", "REVOKED")], time.time())
    outcome = Settlement(first.tag, first.token, publish=(message("next"),))
    reply_lost(proxy, lambda: follow_ups.go_on("me", "lane", 7, outcome, time.time()).held)
    held = follow_ups.go_on("me", "lane", 7, outcome, time.time()).held
    waiting = broker.lease(ME, time.time())
    assert (held, ids(waiting)) == ((False, ["next"]) if revoked else (True, []))
    follower = follow_ups.leased(outcome)
    if not revoked:
        assert follower is not None
        assert broker.settle("me", [Settlement(follower.tag, follower.token)], time.time()) == []
        assert broker.depth(["q"], time.time())["q"].leased == 0


def test_messages_whose_reply_was_lost_are_not_published_twice(engine: Engine, proxy: Proxy, raw: Any) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("warm"), message("up")], time.time())
    for batch in ([message("one")], [message(f"{n}") for n in range(1200)]):
        raw.delete("q")
        reply_lost(proxy, lambda batch=batch: broker.publish(batch, time.time()))
        assert broker.publish(batch, time.time()) == []
        assert raw.llen("q") == len(batch)
    broker.publish([message("next")], time.time())
    assert raw.llen("q") == 1201


@pytest.mark.parametrize("arrived", [100, 90_000, 300_000])
def test_a_batch_that_was_cut_on_its_way_is_stored_once_when_it_is_repeated(
    engine: Engine, proxy: Proxy, raw: Any, arrived: int
) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("warm"), message("up", "r")], time.time())
    raw.flushdb()
    batch = [message(f"{n}", "qr"[n % 2], priority=n % 3 // 2 * 6) for n in range(1000)]
    batch[700].head = b'{"headers":{"task":"odd","id":"700"},"properties":{}}'
    proxy.cut_after(arrived, "to server")
    with pytest.raises(OperationalError):
        broker.publish(batch, time.time())
    proxy.restore()
    assert broker.publish(batch, time.time()) == []
    lists = {(q, p): raw.lrange(q + p, 0, -1) for q in "qr" for p in ("", "\x06\x166")}
    found = sorted(int(json.loads(one)["headers"]["id"]) for stored in lists.values() for one in stored)
    assert found == list(range(1000))
    assert not set(raw.keys("umbel.scheduled*"))


def test_a_message_that_never_arrived_is_published_by_the_next_try(engine: Engine, proxy: Proxy, raw: Any) -> None:
    broker = engine.broker
    assert broker is not None
    broker.publish([message("warm")], time.time())
    proxy.cut_after(20, "to server")
    lost = [message("a")]
    with pytest.raises(OperationalError):
        broker.publish(lost, time.time())
    proxy.restore()
    assert broker.publish(lost, time.time()) == []
    assert raw.llen("q") == 2


def test_a_consumer_whose_waiting_connections_are_cut_goes_on(engine: Engine, proxy: Proxy, raw: Any) -> None:
    broker = engine.broker
    assert broker is not None
    broker.lease(ME, time.time())
    began = threading.Timer(0.2, proxy.cut)
    began.start()
    with pytest.raises(OperationalError):
        broker.lease(ME, time.time(), 20.0)
    began.join()
    publisher = open_engine(f"redis://127.0.0.1:{raw.connection_pool.connection_kwargs['port']}/"
                            f"{raw.connection_pool.connection_kwargs['db']}")  # fmt: skip
    assert publisher.broker is not None
    publisher.broker.publish([message("a")], time.time())
    assert ids(broker.lease(ME, time.time(), 5.0)) == ["a"]
    publisher.close()


def test_a_full_redis_refuses_messages_and_lets_workers_empty_it(redis_installed: None) -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url, protocol=2) as raw:
        engine = open_engine(server.url)
        assert engine.broker is not None
        assert engine.atomic is not None
        engine.broker.publish([message(f"{n}") for n in range(50)], time.time())
        raw.config_set("maxmemory", 1)
        with pytest.raises(StorageFull):
            engine.broker.publish([message("one more")], time.time())
        got = engine.broker.lease(ME, time.time())
        assert len(got) == 50
        assert engine.broker.start("me", [(one.tag, one.token, 1) for one in got], time.time()) == []
        outcomes = [Settlement(one.tag, one.token, record=record(one.id, "SUCCESS")) for one in got]
        assert engine.atomic.commit("me", outcomes, time.time()) == []
        assert engine.broker.extend("me", 30.0, time.time()) is True
        assert engine.broker.depth(["q"], time.time())["q"].leased == 0
        engine.close()
