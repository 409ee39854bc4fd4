"""Large messages go past Redis' scripts, and all that happens to messages happens to them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
import redis

from tests.proxy import Proxy
from tests.servers import RedisServer
from umbel.core.envelope import plain_body
from umbel.core.errors import OperationalError
from umbel.core.head import HeadFields, HeadTemplate, Quarantined
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


def envelope(id_: str, body: str, encoding: str | None) -> bytes:
    """Return an envelope as kombu's Redis transport writes it."""
    properties = {"delivery_tag": "tag", "body_encoding": encoding}
    whole = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "t", "id": id_, "text": '","headers":{'},
        "properties": {name: value for name, value in properties.items() if value is not None},
    }
    return json.dumps(whole).encode()


BODY = '[["' + "x" * 50_000 + ' \\\\ \\" ü"], {}, {}]'
WRITTEN = {
    "base64": (base64.b64encode(BODY.encode()).decode(), "base64", "base64"),
    "text": (BODY, None, "utf-8"),
    "text that says so": (BODY, "utf-8", "utf-8"),
    "spelled otherwise": (BODY, "UTF-8", ""),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_large_body_is_left_as_it_stands_for_whoever_does_not_read_it(engine: Engine, raw: Any, name: str) -> None:
    assert engine.broker is not None
    body, said, known = WRITTEN[name]
    raw.lpush("q", envelope("a", body, said), envelope("b", body, said))
    (first,) = engine.broker.lease(ME._replace(limit=1, encoded=True), time.time())
    assert (first.id, first.body_encoding) == ("a", known)
    assert plain_body(first.body, first.body_encoding) == BODY.encode()
    assert first.body != BODY.encode() or not known
    (second,) = lease(engine)
    assert (second.id, second.body_encoding, second.body) == ("b", "", BODY.encode())
    assert end(engine, [first], end=End.RELEASE) == []
    (again,) = lease(engine)
    assert (again.id, again.body) == ("a", BODY.encode())


def test_base64_that_is_none_is_told_by_whoever_reads_it(engine: Engine, raw: Any) -> None:
    assert engine.broker is not None
    assert engine.dead is not None
    raw.lpush("q", envelope("a", "!" * 50_000, "base64"))
    (got,) = engine.broker.lease(ME._replace(encoded=True), time.time())
    assert isinstance(plain_body(got.body, got.body_encoding), Quarantined)
    assert end(engine, [got], end=End.RELEASE) == []
    assert lease(engine) == []
    (letter,) = engine.dead.browse()
    assert "base64" in letter.reason


def test_a_large_body_is_sent_as_text_unless_base64_is_asked_for(redis_url: str, raw: Any) -> None:
    sent = large("a")
    sent.head = HeadTemplate("t").write(HeadFields("a"))
    for options, text in (({}, True), ({"body_encoding": "base64"}, False)):
        engine = open_engine(redis_url, options)
        publish(engine, sent)
        publish(engine, sent, sent)
        for _ in range(3):
            found = json.loads(raw.rpop("q"))
            assert (found["body"] == sent.body.decode()) == text
            assert found["properties"].get("body_encoding") == (None if text else "base64")
        engine.close()


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
