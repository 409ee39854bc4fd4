"""The next messages are on their way while a worker deals with these; none is lost, and none comes twice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engines.redis.test_large import large
from tests.proxy import Proxy
from umbel.core.errors import OperationalError
from umbel.core.message import Delivery, End, Message, Record, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import ids, message

ME = Lease(("q",), "me", 200, 30.0, again=True, encoded=True)
#: Kind of message → how to make one, and how many of them are many.
KINDS: dict[str, tuple[Callable[[str], Message], int]] = {"small": (message, 700), "large": (large, 150)}


def lease(engine: Engine, wanted: Lease = ME) -> list[Delivery]:
    assert engine.broker is not None
    return engine.broker.lease(wanted, time.time())


def end(engine: Engine, deliveries: list[Delivery], how: End = End.DONE) -> None:
    assert engine.broker is not None
    assert engine.broker.settle("me", [Settlement(d.tag, d.token, how) for d in deliveries], time.time()) == []


def held(raw: Any) -> int:
    return sum(raw.hlen(key) for key in raw.keys("umbel.held.*"))


def more_than(raw: Any, count: int) -> bool:
    """Wait until more messages than so many are held."""
    deadline = time.monotonic() + 10
    while held(raw) <= count and time.monotonic() < deadline:
        time.sleep(0.001)
    return held(raw) > count


def send(engine: Engine, kind: str) -> list[str]:
    """Publish many messages; what came before them tells the worker how large they are."""
    assert engine.broker is not None
    make, count = KINDS[kind]
    engine.broker.publish([make("first")], time.time())
    end(engine, lease(engine))
    names = [f"{n}" for n in range(count)]
    assert engine.broker.publish([make(name) for name in names], time.time()) == []
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_messages_are_on_their_way_and_come_with_the_next_call(engine: Engine, raw: Any, kind: str) -> None:
    names = send(engine, kind)
    got = lease(engine)
    assert 0 < len(got) < len(names)
    assert engine.broker is not None
    assert engine.broker.start("me", [(one.tag, one.token, 1) for one in got], time.time()) == []
    assert more_than(raw, len(got))
    while some := lease(engine):
        assert len(some) <= ME.limit
        assert engine.broker.start("me", [(one.tag, one.token, 1) for one in some], time.time()) == []
        got += some
    assert ids(got) == names
    assert len({one.tag.number for one in got}) == len(names)
    end(engine, got)
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_wants_nothing_more_is_given_what_was_on_its_way(engine: Engine, raw: Any, kind: str) -> None:
    names = send(engine, kind)
    assert engine.broker is not None
    got = lease(engine)
    engine.broker.start("me", [], time.time())
    got += lease(engine, ME._replace(limit=0))
    assert lease(engine, ME._replace(limit=0)) == []
    assert held(raw) == len(got) < len(names)
    end(engine, got, End.RELEASE)
    while some := lease(engine):
        got += some
    assert sorted(set(ids(got)), key=int) == names


def test_whoever_does_not_come_back_gets_all_at_once(engine: Engine, raw: Any) -> None:
    send(engine, "small")
    got = lease(engine, ME._replace(again=False))
    assert len(got) == ME.limit == held(raw)


def test_a_server_that_has_forgotten_its_scripts_is_sent_them_again(engine: Engine, raw: Any) -> None:
    names = send(engine, "small")
    got = []
    while some := lease(engine):
        raw.script_flush()
        got += some
    assert ids(got) == names


@pytest.mark.parametrize("cut", [0, 200, 20_000, 3_000_000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_lost_on_its_way_comes_with_the_next_call(
    engine: Engine, proxy: Proxy, raw: Any, kind: str, cut: int
) -> None:
    assert engine.broker is not None
    names = send(engine, kind)
    got = lease(engine)
    engine.broker.start("me", [], time.time())
    proxy.cut_after(cut)
    with contextlib.suppress(OperationalError):
        while some := lease(engine):
            got += some
    proxy.restore()
    while some := lease(engine):
        got += some
    assert sorted(ids(got), key=int) == names
    end(engine, got)
    assert raw.keys("umbel.large.*") + raw.keys("umbel.held.*") == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_revoked_while_it_is_on_its_way_is_known_to_be(
    engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert engine.broker is not None
    assert engine.store is not None
    names = send(engine, kind)
    got = lease(engine)
    engine.broker.start("me", [], time.time())
    other = open_engine(redis_url)
    assert other.store is not None
    other.store.revoke([Record(name, "REVOKED", b"{}", time.time() + 60) for name in names], time.time())
    other.close()
    monkeypatch.setattr("umbel.engines.redis.leasing._FRESH", 0.0)
    more = ids(lease(engine))
    assert 0 < len(more) < len(names) - len(got) + 1
    assert engine.store.revoked(more) == set(more)
