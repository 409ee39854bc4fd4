"""Large messages go past Redis' scripts, and all that happens to messages happens to them."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from tests.proxy import Proxy
from tests.servers import RedisServer
from umbel.core.errors import OperationalError
from umbel.core.message import Delivery, End, Message, Settlement, Stage
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.engines.redis.scripts import CLAIM
from umbel.testing.conformance_parts import ids, message

ME = Lease(("q",), "me", 100, 30.0)


def large(id_: str, **fields: Any) -> Message:
    """Return a message of 100 KB."""
    one = message(id_, **fields)
    one.body = b'[["%b%b"], {}, {}]' % (id_.encode(), b"x" * 100_000)
    return one


def publish(engine: Engine, *messages: Message) -> None:
    assert engine.broker is not None
    assert engine.broker.publish(messages, time.time()) == []


def lease(engine: Engine, limit: int = 100) -> list[Delivery]:
    assert engine.broker is not None
    return engine.broker.lease(ME._replace(limit=limit), time.time())


def end(engine: Engine, deliveries: list[Delivery], **fields: Any) -> list[Any]:
    assert engine.atomic is not None
    return engine.atomic.commit("me", [Settlement(d.tag, d.token, **fields) for d in deliveries], time.time())


def warm(engine: Engine) -> None:
    """Lease a large message, so that the next ones are expected to be large."""
    publish(engine, large("warm"))
    (one,) = lease(engine)
    assert end(engine, [one]) == []


def test_large_messages_come_in_order_and_leave_nothing_behind(engine: Engine, raw: Any) -> None:
    warm(engine)
    batch = [large(f"{n}") for n in range(10)]
    publish(engine, *batch)
    got = lease(engine, 7)
    assert [(one.id, one.body, one.token) for one in got] == [(one.id, one.body, 1) for one in batch[:7]]
    assert len(raw.keys("umbel.large.*")) == 7
    assert len({one.tag.number for one in got}) == 7
    got += lease(engine)
    assert ids(got) == [f"{n}" for n in range(10)]
    assert end(engine, got) == []
    assert end(engine, got[:1]) == [got[0].tag]
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


def test_small_messages_among_large_ones_are_leased_as_ever(engine: Engine, raw: Any) -> None:
    warm(engine)
    sent = [message(f"{n}") if n % 3 else large(f"{n}") for n in range(20)]
    publish(engine, *sent)
    got = []
    while some := lease(engine, 4):
        got += some
    assert [(one.id, one.body) for one in got] == [(one.id, one.body) for one in sent]
    assert end(engine, got) == []
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


@pytest.mark.parametrize("how", [End.RELEASE, End.REQUEUE, End.CRASHED, End.DEAD])
def test_a_large_message_goes_back_whole(engine: Engine, raw: Any, how: End) -> None:
    warm(engine)
    sent = large("a")
    publish(engine, sent)
    assert end(engine, lease(engine), end=how) == []
    if how is End.DEAD:
        assert engine.dead is not None
        (letter,) = engine.dead.browse()
        assert letter.message.body == sent.body
        assert engine.dead.revive([letter.number], time.time()) == 1
    assert raw.keys("umbel.large.*") == []
    (again,) = lease(engine)
    assert (again.id, again.body, again.crashes) == ("a", sent.body, int(how is End.CRASHED))


def test_a_large_message_that_is_not_due_is_put_away_whole(engine: Engine, raw: Any) -> None:
    warm(engine)
    later = large("later", due=time.time() + 3600)
    publish(engine, later)
    (put_away,) = raw.zrange("umbel.scheduled", 0, -1)
    raw.delete("umbel.scheduled", "umbel.scheduled.count")
    raw.lpush("q", put_away.split(b"\0", 1)[1])
    assert lease(engine) == []
    assert raw.zrange("umbel.scheduled", 0, -1) == [put_away]
    assert raw.keys("umbel.large.*") == []


def test_large_messages_of_a_dead_owner_are_taken_over(engine: Engine, raw: Any) -> None:
    assert engine.broker is not None
    warm(engine)
    publish(engine, large("a"), large("b"))
    first = lease(engine)
    engine.broker.start("me", [(first[0].tag, first[0].token, 7)], time.time())
    assert engine.broker.find(["a", "b"], time.time()) == {"a": Stage.STARTED, "b": Stage.LEASED}
    heir = Lease(("q",), "heir", 100, 30.0, dead=("me",))
    taken = engine.broker.recover(heir, time.time())
    assert [(one.id, one.body, one.token, one.ticket) for one in taken] == [
        ("a", first[0].body, 2, 7),
        ("b", first[1].body, 2, 0),
    ]
    assert end(engine, first) == [one.tag for one in first]
    assert len(raw.keys("umbel.large.*")) == 2
    assert engine.broker.settle("heir", [Settlement(one.tag, one.token) for one in taken], time.time()) == []
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


@pytest.mark.parametrize("cut", [0, 400, 50_000])
def test_large_messages_whose_reply_was_lost_are_returned_by_the_next_call(
    engine: Engine, proxy: Proxy, raw: Any, cut: int
) -> None:
    warm(engine)
    sent = [large(f"{n}") for n in range(5)]
    publish(engine, *sent)
    proxy.cut_after(cut)
    with pytest.raises(OperationalError):
        lease(engine)
    proxy.restore()
    got = lease(engine)
    assert [(one.id, one.body) for one in got] == [(one.id, one.body) for one in sent]
    assert end(engine, got) == []
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


def test_a_claim_that_comes_late_puts_the_messages_back(engine: Engine, raw: Any) -> None:
    warm(engine)
    publish(engine, large("a"), large("b"), large("c"))
    (first,) = lease(engine, 1)
    call = raw.get("umbel.call.me").split(b" ")[0]
    with raw.pipeline(transaction=True) as steps:
        for number in (900, 901):
            steps.lmove("q", f"umbel.large.{number}", "RIGHT", "LEFT")
        steps.eval(CLAIM.source, 1, "", "me", "q", call, 900, 2)
        steps.execute()
    assert raw.keys("umbel.large.90*") == []
    assert ids(lease(engine)) == ["b", "c"]
    assert end(engine, [first]) == []


def test_where_redis_is_full_large_messages_are_leased_all_the_same(redis_installed: None) -> None:
    with RedisServer(maxmemory="20mb") as server, redis.Redis.from_url(server.url) as raw:
        engine = open_engine(server.url)
        warm(engine)
        publish(engine, large("a"), large("b"))
        raw.config_set("maxmemory", "1mb")
        got = lease(engine) or lease(engine)
        assert ids(got) == ["a", "b"]
        assert end(engine, got) == []
        engine.close()
