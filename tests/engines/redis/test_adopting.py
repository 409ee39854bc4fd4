"""What another broker has let go and Redis keeps: known again while it is held, and not a moment longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from umbel.core.message import Delivery, End, Message, Record, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Broker, Engine, Lease

ME = Lease((), "me", 10, 30.0)
HEAD = b'{"content-encoding":"utf-8","content-type":"application/json","headers":%b,"properties":{"priority":0}}'


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    engine = open_engine(redis_url, {})
    yield engine
    engine.close()


@pytest.fixture
def broker(engine: Engine) -> Broker:
    assert engine.broker is not None
    return engine.broker


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def held(id_: str, **fields: Any) -> Delivery:
    head = fields.pop("head", HEAD % b'{"task":"project.task","id":"%b"}' % id_.encode())
    return Delivery(id_, "project.task", "shelf:q", head, b"[]", **{"token": 1, "ticket": 7, **fields})


@pytest.mark.parametrize("end", list(End))
@pytest.mark.parametrize("taken_over", [False, True])
def test_the_index_forgets_a_message_however_it_ends(broker: Broker, raw: Any, end: End, taken_over: bool) -> None:
    odd = held("odd", head=b'{"properties":{},"headers":{"task":"project.task","id":"odd"},"x":1}')
    mine, owner = broker.adopt(ME, [held("a"), odd, held("b")], time.time()), "me"
    assert raw.hlen("umbel.adopted") == 3
    if taken_over:
        heir = Lease((), "heir", 10, 30.0, dead=("me",))
        mine, owner = broker.recover(heir, time.time()), "heir"
    ends = [Settlement(one.tag, one.token, end) for one in mine if one.id != "b"]
    assert broker.settle(owner, ends, time.time()) == []
    assert raw.hlen("umbel.adopted") == 1
    again = broker.adopt(ME._replace(owner="other"), [held("a"), odd, held("b")], time.time())
    assert [one.id for one in again] == ["a", "odd"]


def test_what_went_back_to_its_queue_is_an_ordinary_message(broker: Broker, raw: Any) -> None:
    (mine,) = broker.adopt(ME, [held("a")], time.time())
    broker.settle("me", [Settlement(mine.tag, mine.token, End.RELEASE)], time.time())
    assert b"adopted" not in raw.lindex("shelf:q", 0)
    (got,) = broker.lease(ME._replace(queues=("shelf:q",)), time.time())
    assert (got.id, got.token, got.tag.adopted) == ("a", 2, None)


def test_a_batch_that_follows_one_whose_reply_was_lost_is_stored_as_well(
    broker: Broker, redis_url: str, raw: Any
) -> None:
    # The reply is lost on the way: the server has it all the same.
    other = open_engine(redis_url, {}).broker
    assert other is not None
    lost = other.adopt(ME, [held("a"), held("b")], time.time())
    got = broker.adopt(ME, [held("c"), held("b")], time.time())
    assert [one.id for one in got] == ["c", "b"]
    assert got[1].tag == lost[1].tag
    assert raw.hlen("umbel.held.me\x06\x16shelf:q") == 3


def test_messages_of_any_name_are_told_apart(broker: Broker) -> None:
    names = ["a", "a 1", "é\n", "x" * 300, 'q"\\', "a\0b"]
    sent = [held(name, generation=n) for name in names for n in (0, 1)]
    got = broker.adopt(ME, sent, time.time())
    assert len({one.tag for one in got}) == len(sent)
    assert broker.adopt(ME._replace(owner="other"), sent, time.time()) == []


def test_ordinary_messages_leave_the_index_alone(broker: Broker, raw: Any) -> None:
    broker.adopt(ME, [held("a")], time.time())
    message = Message("o", "project.task", "q", HEAD % b'{"task":"project.task","id":"o"}', b"[]")
    broker.publish([message], time.time())
    lease = ME._replace(queues=("q",))
    before = raw.hgetall("umbel.adopted")
    (one,) = broker.lease(lease, time.time())
    broker.start("me", [(one.tag, one.token, 3)], time.time())
    (one,) = broker.recover(Lease(("q",), "heir", 9, 30.0, dead=("me",)), time.time())
    assert broker.settle("heir", [Settlement(one.tag, one.token)], time.time()) == []
    assert raw.hgetall("umbel.adopted") == before


def test_taking_in_looks_whether_anything_is_revoked_so_that_nobody_asks_while_that_is_nothing(
    engine: Engine, broker: Broker, raw: Any
) -> None:
    assert engine.store is not None
    assert engine.caps.adopt_looks

    def asked() -> int:
        return int(raw.info("commandstats").get("cmdstat_zmscore", {}).get("calls", 0))

    before = asked()
    broker.adopt(ME, [held("a")], time.time())
    assert (engine.store.revoked(["a"]), asked() - before) == (set(), 0)
    # What was seen counts once.
    assert (engine.store.revoked(["a"]), asked() - before) == (set(), 1)
    engine.store.revoke([Record("b", "REVOKED", b"{}")], time.time())
    broker.adopt(ME, [held("b")], time.time())
    assert (engine.store.revoked(["a", "b"]), asked() - before) == ({"b"}, 2)
