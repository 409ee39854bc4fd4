"""What every broker does, as tests; where `Caps` differ, the lesser duty that is left."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import threading
import time

from umbel.core.message import Depth, End, Settlement, Stage
from umbel.core.queues import Queue
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_exchanges import ExchangeSuite
from umbel.testing.conformance_lapse import LapseSuite
from umbel.testing.conformance_parts import (
    DEADLINE,
    HIGHEST_PRIORITY,
    ROUND,
    Suite,
    done,
    eventually,
    ids,
    message,
    same,
    step,
)


class LeaseSuite(Suite):
    """How messages come in and are leased."""

    def test_what_is_published_is_delivered_once_as_it_was(self, engine: Engine) -> None:
        now = self.now(engine)
        sent = message("a", priority=3, expires=now + 50, generation=2)
        assert self.broker(engine).publish([sent], now) == []
        (got,) = self.take(engine, now=now)
        assert same(got, sent)
        assert (got.queue, got.priority, got.expires, got.generation) == ("q", 3, now + 50, 2)
        assert got.published in {now, 0.0} or int(now) <= got.published <= time.time()
        assert (got.crashes, got.offers, got.ticket, got.former_owner) == (0, 0, 0, "")
        assert self.take(engine, now=now) == []

    def test_bodies_and_headers_of_any_kind_arrive_as_they_were(self, engine: Engine) -> None:
        now = self.now(engine)
        sent = [message("empty"), message("bytes"), message("large"), message("ü ☂ '\"\\")]
        sent[0].body, sent[1].body, sent[2].body = b"", bytes(range(256)), b"x" * 300_000
        assert self.broker(engine).publish(sent, now) == []
        got = self.take(engine, now=now)
        assert len(got) == len(sent)
        assert all(same(one, two) for one, two in zip(got, sent, strict=True))

    def test_publishing_a_stored_id_and_generation_again_adds_nothing(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a"), message("a")], now)
        assert broker.publish([message("a"), message("a", generation=1)], now) == []
        got = [(got.id, got.generation) for got in self.take(engine, now=now)]
        if not engine.caps.once:  # then at least nothing is lost
            assert got == [("a", 0), ("a", 0), ("a", 0), ("a", 1)]
            return
        assert got == [("a", 0), ("a", 1)]
        assert broker.publish([message("a")], now) == []
        assert self.take(engine, now=now) == []

    def test_publishing_nothing_is_nothing(self, engine: Engine) -> None:
        assert self.broker(engine).publish([], self.now(engine)) == []

    def test_older_first_within_a_priority_and_the_order_of_priorities_is_kept(self, engine: Engine) -> None:
        now, low = self.now(engine), -1 if engine.caps.priorities == "exact" else 1
        batch = [message("a", priority=4), message("b", priority=9), message("c", priority=4)]
        self.broker(engine).publish(batch, now)
        self.broker(engine).publish([message("d", priority=9), message("e", priority=low)], now)
        served = sorted("acbde", key=lambda name: step(engine, {"a": 4, "c": 4, "e": low}.get(name, 9)))
        assert ids(self.take(engine, now=now)) == served

    def test_a_lease_takes_no_more_than_its_limit(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message(f"{n:02}", priority=n % 3) for n in range(10)], now)
        assert len(self.take(engine, now=now, limit=0)) == 0
        first, second = self.take(engine, now=now, limit=4), self.take(engine, now=now, limit=100)
        assert (len(first), len(second)) == (4, 6)
        assert len({*ids(first), *ids(second)}) == 10

    def test_queues_do_not_mix_and_none_starves(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message(f"a{n}", "a") for n in range(50)], now)
        self.broker(engine).publish([message("b0", "b"), message("x", "not asked for")], now)
        seen: list[str] = []
        for _ in range(4):
            seen += ids(self.take(engine, now=now, queues=("a", "b"), limit=2))
        assert "b0" in seen
        assert "x" not in seen
        assert len(seen) == 8

    def test_strange_queue_names_are_only_names(self, engine: Engine) -> None:
        now = self.now(engine)
        names = ["'; drop table message; --", "%", "_", "*", "[", "../up", "a\x06\x163", "ü", "a.b c"]
        names += [""] if engine.caps.clock == "caller" else []
        broker = self.broker(engine)
        broker.declare([Queue(name) for name in names])
        broker.publish([message(str(n), name) for n, name in enumerate(names)], now)
        for n, name in enumerate(names):
            assert ids(self.take(engine, now=now, queues=(name,))) == [str(n)]

    def test_a_queue_that_nobody_declared_takes_messages_or_refuses_them(self, engine: Engine) -> None:
        now = self.now(engine)
        refused = self.broker(engine).publish([message("a", "fresh"), message("b")], now)
        assert [item.index for item in refused] in ([], [0])
        assert ids(self.take(engine, now=now)) == ["b"]
        if not refused:
            assert ids(self.take(engine, now=now, queues=("fresh",))) == ["a"]

    def test_a_message_is_not_delivered_before_it_is_due(self, engine: Engine) -> None:
        now = self.now(engine)
        due = now + self.soon(engine, 60)
        self.broker(engine).publish([message("later", due=due), message("now", due=now)], now)
        assert ids(self.take(engine, now=now)) == ["now"]
        assert self.take(engine, now=due - 0.1) == []
        assert ids(self.take(engine, now=self.pass_until(engine, due), wait=DEADLINE)) == ["later"]
        assert engine.caps.clock == "caller" or time.time() >= due

    def test_an_expired_message_is_delivered_so_that_somebody_ends_it(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message("a", expires=now - 1)], now)
        assert ids(self.take(engine, now=now + 100)) == ["a"]

    def test_waiting_ends_when_a_message_arrives(self, engine: Engine) -> None:
        now = self.now(engine)
        publisher = threading.Timer(0.05, self.broker(engine).publish, ([message("a")], now))
        publisher.start()
        began = time.monotonic()
        assert ids(self.take(engine, now=now, wait=DEADLINE)) == ["a"]
        assert time.monotonic() - began < DEADLINE / 2
        publisher.join()

    def test_waiting_ends_when_a_message_is_due(self, engine: Engine) -> None:
        now = time.time()
        self.broker(engine).publish([message("a", due=now + 0.1)], now)
        assert ids(self.take(engine, now=now, wait=DEADLINE)) == ["a"]
        assert 0.05 < time.time() - now < DEADLINE / 2

    def test_waiting_for_nothing_ends_in_time(self, engine: Engine) -> None:
        now = self.now(engine)
        began = time.monotonic()
        assert self.take(engine, now=now, wait=0.05) == []
        assert 0.04 < time.monotonic() - began < DEADLINE / 2

    def test_wake_ends_every_wait(self, engine: Engine) -> None:
        now, ended = self.now(engine), list[str]()

        def wait(owner: str) -> None:
            self.take(engine, owner, now, wait=DEADLINE)
            ended.append(owner)

        self.take(engine, "one", now), self.take(engine, "two", now)
        threads = [threading.Thread(target=wait, args=(owner,)) for owner in ("one", "two")]
        for thread in threads:
            thread.start()
        self.broker(engine).wake()
        for thread in threads:
            thread.join(DEADLINE / 2)
        assert sorted(ended) == ["one", "two"]

    def test_two_threads_never_get_the_same_message(self, engine: Engine) -> None:
        now, got = self.now(engine), list[str]()
        self.broker(engine).publish([message(f"{n:04}") for n in range(400)], now)

        def consume(owner: str) -> None:
            until = time.monotonic() + DEADLINE
            # One that asks for no wait may find nothing while the rest is on its way, or with the other.
            while len(got) < 400 and time.monotonic() < until:
                taken = self.take(engine, owner, now, limit=7)
                assert self.broker(engine).settle(owner, [done(item) for item in taken], now) == []
                got.extend(ids(taken))

        threads = [threading.Thread(target=consume, args=(f"owner{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(got) == [f"{n:04}" for n in range(400)]

    def test_tasks_that_are_left_to_others_are_there_for_them(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a", task="theirs"), message("b"), message("c", task="theirs")], now)
        mine = Lease(("q",), "me", 10, 30.0, ("theirs",))
        if engine.caps.skips:
            assert [got.id for got in broker.lease(mine, now)] == ["b"]
            assert broker.lease(mine, now) == []
            assert [got.id for got in self.take(engine, "other", now)] == ["a", "c"]
            return
        # Elsewhere they go round: I never get them, and whoever knows them has them within a second.
        got, theirs = list[str](), list[str]()
        began = time.monotonic()

        def mine_are_taken() -> bool:
            got.extend(ids(broker.lease(mine, now + time.monotonic() - began, 0.05)))
            return bool(got)

        def theirs_are_taken() -> bool:
            theirs.extend(ids(self.take(engine, "other", now + time.monotonic() - began)))
            return len(theirs) == 2

        assert eventually(mine_are_taken, 3)
        assert eventually(theirs_are_taken, ROUND)
        assert (got, sorted(theirs)) == (["b"], ["a", "c"])


class EndSuite(Suite):
    """How leases end."""

    def test_done_ends_the_message_and_a_second_end_is_stale(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message("a")], now)
        (got,) = self.take(engine, now=now)
        assert self.broker(engine).settle("me", [done(got), done(got)], now) == [got.tag]
        assert self.broker(engine).settle("me", [done(got)], now) == [got.tag]
        assert self.take(engine, now=now) == []
        if engine.caps.find:
            assert self.broker(engine).find(["a"], now) == {}

    def test_an_end_with_a_wrong_token_or_owner_changes_nothing(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a")], now)
        (got,) = self.take(engine, now=now)
        wrong = Settlement(got.tag, got.token + 1)
        assert broker.settle("me", [wrong], now) == [got.tag]
        assert broker.settle("other", [done(got)], now) == [got.tag]
        if engine.caps.find:
            assert broker.find(["a"], now) == {"a": Stage.LEASED}
        assert broker.settle("me", [done(got)], now) == []

    def test_release_puts_back_in_front_and_old_handles_are_stale(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message("a"), message("b")], now)
        (first,) = self.take(engine, now=now, limit=1)
        self.broker(engine).settle("me", [done(first, end=End.RELEASE)], now)
        again = self.take(engine, now=now)
        assert ids(again) == ["a", "b"]
        # Where leases are taken over, the token is what fences off; elsewhere a handle fits one delivery.
        assert again[0].token > first.token or (not engine.caps.recovers and again[0].tag != first.tag)
        assert (again[0].crashes, again[0].offers) == (0, 0)
        assert self.broker(engine).settle("me", [done(first)], now) == [first.tag]
        assert self.broker(engine).settle("me", [done(got) for got in again], now) == []

    def test_requeue_crash_and_offer_wait_until_due_and_are_counted(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message("a"), message("b"), message("c")], now)
        ends, taken = (End.REQUEUE, End.CRASHED, End.OFFER), self.take(engine, now=now)
        due = self.now(engine) + self.soon(engine, 5)
        settlements = [done(got, end=end, due=due) for got, end in zip(taken, ends, strict=True)]
        assert self.broker(engine).settle("me", settlements, now) == []
        assert self.take(engine, now=due - 1) == []
        again = self.take(engine, now=self.pass_until(engine, due), wait=DEADLINE)
        assert all(same(got, sent) for got, sent in zip(sorted(again, key=lambda got: got.id), taken, strict=True))
        counts = [(got.id, got.crashes, got.offers) for got in again]
        order = list if engine.caps.once else sorted
        assert order(counts) == [("a", 0, 0), ("b", 1, 0), ("c", 0, 1)]
        # They count on, whatever else happens to them, and never less.
        again_due = [done(got, end=End.CRASHED) for got in again]
        assert self.broker(engine).settle("me", again_due, self.now(engine)) == []
        last = self.take(engine, now=due + 1, wait=DEADLINE)
        assert sorted((got.id, got.crashes, got.offers) for got in last) == [("a", 1, 0), ("b", 2, 0), ("c", 1, 1)]

    def test_what_goes_back_keeps_its_priority(self, engine: Engine) -> None:
        now, high = self.now(engine), HIGHEST_PRIORITY
        self.broker(engine).publish([message("low", priority=0), message("high", priority=high)], now)
        ends = {"low": End.CRASHED, "high": End.OFFER}
        taken = self.take(engine, now=now)
        self.broker(engine).settle("me", [done(got, end=ends[got.id]) for got in taken], now)
        again = self.take(engine, now=now + 1)
        served = sorted(("low", "high"), key=lambda name: step(engine, high if name == "high" else 0))
        assert [(got.id, got.priority) for got in again] == [(name, {"high": high}.get(name, 0)) for name in served]

    def test_start_tells_which_leases_are_not_held(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a"), message("b")], now)
        first, second = self.take(engine, now=now)
        tickets = [(first.tag, first.token, 7), (second.tag, second.token + 1, 8)]
        assert broker.start("me", tickets, now) == [second.tag]
        assert broker.start("other", tickets[:1], now) == [first.tag]
        if engine.caps.find:
            assert broker.find(["a", "b"], now) == {"a": Stage.STARTED, "b": Stage.LEASED}
        assert broker.settle("me", [done(first), done(second)], now) == []
        assert broker.start("me", tickets[:1], now) == [first.tag]


class LookSuite(Suite):
    """What a broker tells about itself."""

    def test_depth_and_find_tell_where_messages_are(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        batch = [message("leased"), message("waits"), message("later", due=now + 9), message("x", "other")]
        broker.publish(batch, now)
        self.take(engine, now=now, limit=1)
        if not engine.caps.counts:  # then at least what is ready is told
            assert eventually(lambda: broker.depth(["q"], now)["q"].ready == 1)
            assert broker.depth(["other"], now)["other"].ready == 1
            return
        assert broker.depth(["q", "empty"], now) == {"q": Depth(1, 1, 1), "empty": Depth()}
        assert broker.depth([], now)["other"] == Depth(ready=1)
        # Also a queue that nobody has declared, and that has had nothing but what waits for its time.
        broker.publish([message("alone", "not asked for", due=now + 9)], now)
        alone = broker.depth([], now)["not asked for"]
        assert alone.ready + alone.scheduled == 1
        assert broker.depth(["q"], now + 9)["q"] == Depth(2, 0, 1)
        if engine.caps.find:
            assert broker.find(["leased", "waits", "later", "unknown"], now) == {
                "leased": Stage.LEASED,
                "waits": Stage.QUEUED,
                "later": Stage.SCHEDULED,
            }

    def test_purge_deletes_what_waits_and_nothing_else(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("leased"), message("a"), message("x", "other")], now)
        (got,) = self.take(engine, now=now, limit=1)
        broker.publish([message("b", due=now + 9)] if engine.caps.counts else [message("b")], now)
        assert eventually(lambda: broker.depth(["q"], now)["q"].ready >= (1 if engine.caps.counts else 2))
        assert broker.purge(["q", "unknown"]) == 2
        assert broker.settle("me", [done(got)], now) == []
        assert broker.depth(["q"], now)["q"] == Depth()
        assert self.take(engine, now=now + 10) == []
        assert broker.depth(["other"], now)["other"] == Depth(ready=1)


class BrokerSuite(LeaseSuite, EndSuite, LapseSuite, LookSuite, ExchangeSuite):
    """What every broker does."""
