from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from umbel.core.message import End, Message, Record, Settlement, Stage
from umbel.core.queues import Exchange, Queue
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import ids, message

ME = Lease(("q",), "me", 100, 30.0)


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    engine = open_engine(redis_url)
    yield engine
    engine.close()


def envelope(id_: str, *, eta: str | None = None, priority: int = 0, **properties: Any) -> bytes:
    """Return what Celery's producer leaves in a list."""
    headers = {"lang": "py", "task": "project.task", "id": id_, "eta": eta, "expires": None, "retries": 0}
    return json.dumps(
        {
            "body": base64.b64encode(b"[[1], {}, null]").decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": id_,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "q"},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": f"tag of {id_}",
                **properties,
            },
        }
    ).encode()


def lease(engine: Engine, wanted: Lease = ME, wait: float = 0.0) -> list[Any]:
    assert engine.broker is not None
    return engine.broker.lease(wanted, time.time(), wait)


def settle(engine: Engine, deliveries: list[Any], owner: str = "me", **fields: Any) -> list[Any]:
    assert engine.broker is not None
    return engine.broker.settle(owner, [Settlement(d.tag, d.token, **fields) for d in deliveries], time.time())


def publish(engine: Engine, *messages: Message) -> None:
    assert engine.broker is not None
    assert engine.broker.publish(messages, time.time()) == []


# --- the layout that Celery shares ---------------------------------------------------------------------------------


def test_a_published_message_is_an_envelope_of_kombu_in_the_list_of_its_priority(engine: Engine, raw: Any) -> None:
    publish(engine, message("a"), message("b", priority=5))
    (plain,), (urgent,) = raw.lrange("q", 0, -1), raw.lrange("q\x06\x163", 0, -1)
    first, second = json.loads(plain), json.loads(urgent)
    assert (first["headers"]["id"], second["headers"]["id"]) == ("a", "b")
    assert base64.b64decode(first["body"]) == b"[[], {}, {}]"
    assert first["properties"]["body_encoding"] == "base64"
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]
    assert "umbel" not in first["properties"]


def test_messages_of_a_batch_stand_in_their_lists_as_they_do_one_by_one(engine: Engine, raw: Any) -> None:
    batch = [message(f"{n}", "qr"[n % 2], priority=n % 5 // 4 * 9) for n in range(700)]
    batch[3].head = b'{"headers":{"task":"odd","id":"3"},"properties":{}}'
    batch[5].body = b"x" * 1_500_000
    tags = set()
    publish(engine, *batch)
    for one in batch:
        key = one.queue + "\x06\x169" * (one.priority > 0)
        publish(engine, one)
        together, alone = json.loads(raw.rpop(key)), json.loads(raw.lpop(key))
        tags |= {part["properties"].pop("delivery_tag") for part in (together, alone)}
        together["properties"].get("umbel", {}).pop("published", None)
        alone["properties"].get("umbel", {}).pop("published", None)
        assert together == alone
    assert len(tags) == 1400
    assert {len(tag) for tag in tags} == {36}
    assert {b"q", b"r"} <= raw.smembers("umbel.queues")


def test_messages_of_celery_are_leased_in_the_order_of_kombu(engine: Engine, raw: Any) -> None:
    raw.lpush("q\x06\x169", envelope("last", priority=9))
    raw.lpush("q", envelope("first"), envelope("second"))
    got = lease(engine)
    assert [(one.id, one.task, one.priority) for one in got] == [
        ("first", "project.task", 0),
        ("second", "project.task", 0),
        ("last", "project.task", 9),
    ]
    assert got[0].body == b"[[1], {}, null]"
    assert raw.keys("unacked*") == []


def test_a_message_of_protocol_1_is_leased_under_its_name_and_goes_back_as_it_was(engine: Engine, raw: Any) -> None:
    body = {"task": "project.old", "id": "v1", "args": [1], "kwargs": {}, "retries": 2, "eta": None}
    old = json.loads(envelope("v1"))
    old["headers"], old["body"] = {}, base64.b64encode(json.dumps(body).encode()).decode()
    raw.lpush("q", json.dumps(old))
    (got,) = lease(engine)
    assert (got.id, got.task, got.generation) == ("v1", "project.old", 2)
    assert settle(engine, [got], end=End.CRASHED) == []
    (again,) = lease(engine)
    assert (again.id, again.crashes, again.token) == ("v1", 1, 2)


def test_what_goes_back_is_still_an_envelope_that_celery_reads(engine: Engine, raw: Any) -> None:
    raw.lpush("q", envelope("a", custom="kept"))
    (got,) = lease(engine)
    settle(engine, [got], end=End.RELEASE)
    back, sent = json.loads(raw.lindex("q", -1)), json.loads(envelope("a", custom="kept"))
    assert back["properties"].pop("umbel") == {"token": 1}
    assert back == sent


def test_what_is_no_message_becomes_a_dead_letter_and_stops_nothing(engine: Engine, raw: Any) -> None:
    broken = json.loads(envelope("broken"))
    broken["headers"]["eta"] = "tomorrow"
    nameless = json.loads(envelope("nameless"))
    nameless["headers"]["id"] = ""
    bad = [b"", b"\xff\x00", b"{", b"[]", b"null", b'{"body": 7}', json.dumps(broken), json.dumps(nameless)]
    raw.lpush("q", envelope("before"), *bad, envelope("after"))
    assert ids(lease(engine)) == ["before", "after"]
    assert engine.dead is not None
    letters = engine.dead.browse()
    assert len(letters) == len(bad)
    assert all(letter.reason for letter in letters)
    assert letters[1].message.body == b"\xff\x00"
    assert raw.hlen("umbel.held.me\x06\x16q") == 2
    # Sent again it is what it was, and no message still.
    assert engine.dead.revive([letters[0].number], time.time()) == 1
    assert lease(engine) == []
    assert len(engine.dead.browse()) == len(bad)


def test_a_message_of_celery_that_is_not_due_is_put_away_and_holds_nobody_up(engine: Engine, raw: Any) -> None:
    raw.lpush("q", envelope("later", eta="2100-01-01T00:00:00+00:00"), envelope("now"))
    assert ids(lease(engine)) == ["now"]
    assert engine.broker is not None
    assert engine.broker.depth(["q"], time.time())["q"].scheduled == 1
    assert engine.broker.find(["later"], time.time()) == {"later": Stage.SCHEDULED}
    assert raw.zcard("umbel.scheduled") == 1


def test_a_delay_is_left_to_celery_where_no_worker_of_ours_reads_the_queue(engine: Engine, raw: Any) -> None:
    due = time.time() + 60
    publish(engine, message("theirs", due=due))
    assert raw.llen("q") == 1
    raw.delete("q")
    lease(engine, ME._replace(limit=0))
    publish(engine, message("ours", due=due))
    assert (raw.llen("q"), raw.zcard("umbel.scheduled")) == (0, 1)


def test_a_new_earliest_due_time_is_told_to_a_consumer_that_waits(engine: Engine) -> None:
    lease(engine)
    publish(engine, message("much later", due=time.time() + 3600))
    began = time.monotonic()
    timer = threading.Timer(0.1, lambda: publish(engine, message("soon", due=time.time() + 0.2)))
    timer.start()
    assert ids(lease(engine, wait=10.0)) == ["soon"]
    assert 0.25 < time.monotonic() - began < 3
    timer.join()


def test_bindings_stand_where_kombu_looks_for_them(engine: Engine, raw: Any) -> None:
    assert engine.broker is not None
    engine.broker.declare([Queue("of a", Exchange("news", "topic"), "sport.*"), Queue("of b", Exchange("d"), "k")])
    parts = (b"sport.*", rb"^sport\..*?[^\.]$", b"of a")
    assert raw.smembers("_kombu.binding.news") == {b"\x06\x16".join(parts)}
    assert raw.smembers("_kombu.binding.d") == {b"k\x06\x16\x06\x16of b"}


def test_bindings_that_only_kombu_declared_lead_somewhere(engine: Engine, raw: Any) -> None:
    raw.sadd("_kombu.binding.theirs", b"a.*\x06\x16^a\\..*?[^\\.]$\x06\x16q")
    publish(engine, message("1", "a.b", exchange="theirs"))
    assert ids(lease(engine)) == ["1"]


def test_a_key_prefix_stands_in_front_of_everything(redis_url: str, raw: Any) -> None:
    engine = open_engine(redis_url, {"global_keyprefix": "team-"})
    publish(engine, message("a"), message("b", priority=9))
    engine.broker.declare([Queue("of a", Exchange("news", "topic"), "sport.*")])  # type: ignore[union-attr]
    first, _ = lease(engine)
    settle(engine, [first], end=End.DEAD, reason="because")
    assert lease(engine, ME._replace(queues=("q", "other")), wait=0.05) == []
    engine.close()
    assert {key[:5] for key in raw.keys("*")} == {b"team-"}


# --- waiting -------------------------------------------------------------------------------------------------------


def test_a_message_wakes_one_consumer_of_many_and_none_is_left_in_between(engine: Engine, raw: Any) -> None:
    got: list[tuple[str, str]] = []
    ready = threading.Barrier(4)

    def consume(owner: str) -> None:
        ready.wait(10)
        while taken := lease(engine, Lease(("q",), owner, 1, 30.0), wait=1.0):
            got.extend((owner, one.id) for one in taken)
            settle(engine, taken, owner)

    threads = [threading.Thread(target=consume, args=(f"owner{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    for n in range(60):
        raw.lpush("q" if n % 2 else "q\x06\x163", envelope(f"{n}"))
    for thread in threads:
        thread.join(30)
    assert sorted(id_ for _, id_ in got) == sorted(f"{n}" for n in range(60))
    assert raw.keys("umbel.staged.*") == []
    assert raw.keys("umbel.held.*") == []


def test_a_consumer_that_does_not_wait_any_more_takes_nothing(engine: Engine, raw: Any) -> None:
    assert lease(engine, wait=0.05) == []
    assert raw.info("clients")["blocked_clients"] == 0
    raw.lpush("q", envelope("a"))
    assert (raw.llen("q"), raw.keys("umbel.staged.*")) == (1, [])


def test_what_a_dead_owner_had_staged_is_ready_again_with_no_attempt_used(engine: Engine, raw: Any) -> None:
    lease(engine, ME._replace(owner="dead"))
    raw.lpush("umbel.staged.dead\x06\x16q", envelope("first"), envelope("second"))
    raw.lpush("q", envelope("third"))
    assert engine.broker is not None
    assert engine.broker.recover(Lease(("q",), "heir", 10, 30.0, dead=("dead",)), time.time()) == []
    assert [(one.id, one.token) for one in lease(engine)] == [("first", 1), ("second", 1), ("third", 1)]


def test_owners_known_to_be_dead_lose_their_leases_at_once(engine: Engine) -> None:
    publish(engine, message("a"), message("b"))
    assert engine.broker is not None
    assert len(lease(engine, ME._replace(owner="dead"))) == 2
    heir = Lease(("q",), "heir", 10, 30.0)
    assert engine.broker.recover(heir, time.time()) == []
    taken = engine.broker.recover(heir._replace(dead=("dead", "unknown")), time.time())
    assert [(one.id, one.former_owner, one.token) for one in taken] == [("a", "dead", 2), ("b", "dead", 2)]
    assert engine.broker.extend("dead", 30.0, time.time()) is False
    assert engine.broker.extend("dead", 30.0, time.time()) is True


def test_leases_lapse_on_the_clock_of_redis(engine: Engine) -> None:
    publish(engine, message("a"))
    assert engine.broker is not None
    lease(engine, ME._replace(owner="slow", seconds=0.2))
    heir, deadline = Lease(("q",), "heir", 10, 30.0), time.monotonic() + 10
    while not (taken := engine.broker.recover(heir, time.time() - 30)):
        assert time.monotonic() < deadline
    assert ids(taken) == ["a"]


@pytest.mark.parametrize("spaced", [True, False])
def test_a_large_message_of_any_producer_is_read_as_a_small_one(engine: Engine, raw: Any, spaced: bool) -> None:
    body = b'[["' + b"\xfb\xff?" * 10_000 + b'"], {}, null]'
    usual = json.loads(envelope("usual")) | {"body": base64.b64encode(body).decode()}
    first = {"body": usual["body"], **usual}
    written = json.dumps(first, separators=None if spaced else (",", ":"))
    raw.lpush("q", written, written.replace("usual", "escaped").replace("/", "\\/"))
    raw.lpush(
        "q", written.replace("usual", "last")[:-1] + ', "body": "' + base64.b64encode(b"[[],{},{}]").decode() + '"}'
    )
    raw.lpush("q", json.dumps(usual).replace("usual", "behind"), written.replace("usual", "bad").replace("/", "*"))
    got = {one.id: one.body for one in lease(engine)}
    assert got == {"usual": body, "escaped": body, "last": b"[[],{},{}]", "behind": body}
    assert engine.dead is not None
    assert len(engine.dead.browse()) == 1


def test_large_messages_are_leased_by_turns(engine: Engine) -> None:
    batch = [message(f"{n}") for n in range(30)]
    for one in batch:
        one.body = b"x" * 1_000_000
    publish(engine, *batch)
    turns = []
    while got := lease(engine):
        turns.append(len(got))
        assert settle(engine, got) == []
    assert sum(turns) == 30
    assert max(turns) < 20


def test_large_outcomes_are_stored_by_turns(engine: Engine, raw: Any) -> None:
    publish(engine, *[message(f"{n}") for n in range(30)])
    got = lease(engine)
    big = b'{"status": "SUCCESS", "result": "' + b"x" * 1_000_000 + b'"}'
    outcomes = [Settlement(one.tag, one.token, record=Record(one.id, "SUCCESS", big)) for one in got]
    assert engine.atomic is not None
    assert settle(engine, got[7:8]) == []
    assert engine.atomic.commit("me", outcomes, time.time()) == [got[7].tag]
    assert len(raw.keys("celery-task-meta-*")) == 29


def test_a_worker_that_leaves_says_so_to_those_who_send_delays(engine: Engine, redis_url: str, raw: Any) -> None:
    worker = open_engine(redis_url)
    lease(worker)
    assert raw.zcard("umbel.consumers.q") == 1
    worker.close()
    publish(engine, message("a", due=time.time() + 60))
    assert (raw.llen("q"), raw.zcard("umbel.scheduled")) == (1, 0)


def test_a_separator_of_its_own_stands_in_lists_and_bindings(redis_url: str, raw: Any) -> None:
    engine = open_engine(redis_url, {"sep": ":"})
    assert engine.broker is not None
    engine.broker.declare([Queue("q", Exchange("d"), "k")])
    publish(engine, message("a", "k", exchange="d", priority=9))
    assert raw.smembers("_kombu.binding.d") == {b"k::q"}
    assert raw.llen("q:9") == 1
    assert ids(lease(engine)) == ["a"]
    engine.close()


def test_results_of_several_lists_and_lives_go_with_other_ends_in_one_call_and_stale_ones_alone_are_left_out(
    engine: Engine, raw: Any
) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    publish(engine, *[message(name, priority=5 if name in "de" else 0) for name in names])
    held = {delivery.id: delivery for delivery in lease(engine)}
    settle(engine, [held["b"], held["e"]])
    now = time.time()
    meta = b'{"status": "%b", "result": 1}'
    records = {
        "a": Record("a", "SUCCESS", meta % b"SUCCESS", now + 100),
        "b": Record("b", "SUCCESS", meta % b"SUCCESS", now + 100),
        "c": Record("c", "RETRY", meta % b"RETRY", now + 100),
        "d": Record("d", "FAILURE", meta % b"FAILURE", now + 100),
        "e": Record("e", "SUCCESS", meta % b"SUCCESS"),
        "f": Record("f", "SUCCESS", meta % b"SUCCESS"),
    }
    batch = [Settlement(held[name].tag, held[name].token, record=records[name]) for name in names]
    batch[2] = Settlement(held["c"].tag, held["c"].token, End.REQUEUE, records["c"], (message("after c"),))
    assert engine.atomic is not None
    assert engine.atomic.commit("me", batch, now) == [held["b"].tag, held["e"].tag]
    assert engine.store is not None
    assert engine.store.get(names, now) == {
        name: Record(name, records[name].state, records[name].meta) for name in ("a", "c", "d", "f")
    }
    assert all(60 < raw.ttl(f"celery-task-meta-{name}") <= 100 for name in "ad")
    assert raw.ttl("celery-task-meta-f") == -1
    assert ids(lease(engine)) == ["c", "after c"]
    assert engine.atomic.commit("me", batch[:2], now) == [held["a"].tag, held["b"].tag]
