"""The suite that says whether an engine is right. Subclass the classes and return an engine from `engine`.

    class TestBroker(conformance.BrokerSuite):
        @pytest.fixture
        def engine(self, tmp_path):
            engine = open_engine(f"sqlite:///{tmp_path}/q.db", {})
            yield engine
            engine.close()

Every test speaks to the protocols of `umbel.engine.seam` only, and hands in the time itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from umbel.core.errors import Unroutable
from umbel.core.message import Delivery, Depth, End, Message, Record, Settlement, Stage
from umbel.core.queues import Exchange, Queue
from umbel.engine.seam import Atomic, Broker, Bus, DeadLetters, Engine, Lease, Store

__all__ = ["AtomicSuite", "BrokerSuite", "BusSuite", "DeadLetterSuite", "StoreSuite", "message"]

#: The time at which every test begins.
NOW = 1_700_000_000.0
_DEADLINE = 10.0


def message(id_: str, queue: str = "q", **fields: Any) -> Message:
    """Return a small message."""
    return Message(id_, "project.task", queue, b'{"task": "project.task"}', b"[[], {}, {}]", **fields)


def done(delivery: Delivery, **fields: Any) -> Settlement:
    """Return the settlement of a delivery."""
    return Settlement(delivery.tag, delivery.token, **fields)


def ids(deliveries: Sequence[Message]) -> list[str]:
    """Return the ids of messages in order."""
    return [delivery.id for delivery in deliveries]


class _Suite:
    @staticmethod
    def broker(engine: Engine) -> Broker:
        """Return the broker of the engine under test."""
        assert engine.broker is not None
        return engine.broker

    @staticmethod
    def store(engine: Engine) -> Store:
        """Return the store of the engine under test."""
        assert engine.store is not None
        return engine.store

    @staticmethod
    def take(engine: Engine, owner: str = "me", now: float = NOW, **fields: Any) -> list[Delivery]:
        """Lease from queue q."""
        assert engine.broker is not None
        wait = fields.pop("wait", 0.0)
        lease = {"queues": ("q",), "limit": 100, "seconds": 30.0, **fields}
        return engine.broker.lease(Lease(owner=owner, **lease), now, wait)


class BrokerSuite(_Suite):
    """What every broker does."""

    def test_what_is_published_is_delivered_once_as_it_was(self, engine: Engine) -> None:
        sent = message("a", priority=3, expires=NOW + 5, generation=2)
        assert self.broker(engine).publish([sent], NOW) == []
        (got,) = self.take(engine)
        assert (got.id, got.task, got.queue, got.head, got.body) == (
            sent.id,
            sent.task,
            "q",
            sent.head,
            sent.body,
        )
        assert (got.priority, got.expires, got.generation, got.published) == (3, NOW + 5, 2, NOW)
        assert (got.crashes, got.offers, got.ticket, got.former_owner) == (0, 0, 0, "")
        assert self.take(engine) == []

    def test_publishing_a_stored_id_and_generation_again_adds_nothing(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message("a"), message("a")], NOW)
        assert broker.publish([message("a"), message("a", generation=1)], NOW) == []
        assert [(got.id, got.generation) for got in self.take(engine)] == [("a", 0), ("a", 1)]
        assert broker.publish([message("a")], NOW) == []
        assert self.take(engine) == []

    def test_publishing_nothing_is_nothing(self, engine: Engine) -> None:
        assert self.broker(engine).publish([], NOW) == []

    def test_older_first_within_a_priority_and_higher_priority_first(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b", priority=9), message("c")], NOW)
        self.broker(engine).publish([message("d", priority=9), message("e", priority=-1)], NOW)
        assert ids(self.take(engine)) == ["b", "d", "a", "c", "e"]

    def test_a_lease_takes_no_more_than_its_limit(self, engine: Engine) -> None:
        self.broker(engine).publish([message(f"{n:02}", priority=n % 3) for n in range(10)], NOW)
        assert len(self.take(engine, limit=0)) == 0
        first, second = self.take(engine, limit=4), self.take(engine, limit=100)
        assert (len(first), len(second)) == (4, 6)
        assert len({*ids(first), *ids(second)}) == 10

    def test_queues_do_not_mix_and_none_starves(self, engine: Engine) -> None:
        self.broker(engine).publish([message(f"a{n}", "a") for n in range(50)], NOW)
        self.broker(engine).publish([message("b0", "b"), message("x", "not asked for")], NOW)
        seen: list[str] = []
        for _ in range(4):
            seen += ids(self.take(engine, queues=("a", "b", "unknown"), limit=2))
        assert "b0" in seen
        assert "x" not in seen
        assert len(seen) == 8

    def test_strange_queue_names_are_only_names(self, engine: Engine) -> None:
        names = ["'; drop table message; --", "%", "_", "*", "[", "../up", "a\x06\x163", "ü", ""]
        self.broker(engine).publish([message(str(n), name) for n, name in enumerate(names)], NOW)
        for n, name in enumerate(names):
            assert ids(self.take(engine, queues=(name,))) == [str(n)]

    def test_a_message_is_not_delivered_before_it_is_due(self, engine: Engine) -> None:
        self.broker(engine).publish([message("later", due=NOW + 60), message("now", due=NOW)], NOW)
        assert ids(self.take(engine)) == ["now"]
        assert self.take(engine, now=NOW + 59.9) == []
        assert ids(self.take(engine, now=NOW + 60)) == ["later"]

    def test_an_expired_message_is_delivered_so_that_somebody_ends_it(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a", expires=NOW + 1)], NOW)
        assert ids(self.take(engine, now=NOW + 100)) == ["a"]

    def test_waiting_ends_when_a_message_arrives(self, engine: Engine) -> None:
        publisher = threading.Timer(0.05, self.broker(engine).publish, ([message("a")], NOW))
        publisher.start()
        began = time.monotonic()
        assert ids(self.take(engine, wait=_DEADLINE)) == ["a"]
        assert time.monotonic() - began < _DEADLINE / 2
        publisher.join()

    def test_waiting_ends_when_a_message_is_due(self, engine: Engine) -> None:
        now = time.time()
        self.broker(engine).publish([message("a", due=now + 0.1)], now)
        assert ids(self.take(engine, now=now, wait=_DEADLINE)) == ["a"]
        assert 0.05 < time.time() - now < _DEADLINE / 2

    def test_waiting_for_nothing_ends_in_time(self, engine: Engine) -> None:
        began = time.monotonic()
        assert self.take(engine, wait=0.05) == []
        assert 0.04 < time.monotonic() - began < _DEADLINE / 2

    def test_wake_ends_every_wait(self, engine: Engine) -> None:
        ended: list[str] = []

        def wait(owner: str) -> None:
            self.take(engine, owner, wait=_DEADLINE)
            ended.append(owner)

        self.take(engine, "one"), self.take(engine, "two")
        threads = [threading.Thread(target=wait, args=(owner,)) for owner in ("one", "two")]
        for thread in threads:
            thread.start()
        self.broker(engine).wake()
        for thread in threads:
            thread.join(_DEADLINE / 2)
        assert sorted(ended) == ["one", "two"]

    def test_two_threads_never_get_the_same_message(self, engine: Engine) -> None:
        self.broker(engine).publish([message(f"{n:04}") for n in range(400)], NOW)
        got: list[str] = []

        def consume(owner: str) -> None:
            while taken := self.take(engine, owner, limit=7):
                assert self.broker(engine).settle(owner, [done(item) for item in taken], NOW) == []
                got.extend(ids(taken))

        threads = [threading.Thread(target=consume, args=(f"owner{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_DEADLINE)
        assert sorted(got) == [f"{n:04}" for n in range(400)]

    # --- ends ----------------------------------------------------------------------------------------------

    def test_done_ends_the_message_and_a_second_end_is_stale(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        assert self.broker(engine).settle("me", [done(got), done(got)], NOW) == [got.tag]
        assert self.broker(engine).find(["a"], NOW) == {}
        assert self.broker(engine).settle("me", [done(got)], NOW) == [got.tag]

    def test_an_end_with_a_wrong_token_or_owner_changes_nothing(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        wrong = Settlement(got.tag, got.token + 1)
        assert self.broker(engine).settle("me", [wrong], NOW) == [got.tag]
        assert self.broker(engine).settle("other", [done(got)], NOW) == [got.tag]
        assert self.broker(engine).find(["a"], NOW) == {"a": Stage.LEASED}

    def test_release_puts_back_in_front_and_the_token_grows(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b")], NOW)
        (first,) = self.take(engine, limit=1)
        self.broker(engine).settle("me", [done(first, end=End.RELEASE)], NOW)
        again = self.take(engine)
        assert ids(again) == ["a", "b"]
        assert again[0].token > first.token
        assert (again[0].crashes, again[0].offers) == (0, 0)
        assert self.broker(engine).settle("me", [done(first)], NOW) == [first.tag]

    def test_requeue_crash_and_offer_wait_until_due_and_are_counted(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b"), message("c")], NOW)
        ends = (End.REQUEUE, End.CRASHED, End.OFFER)
        settlements = [done(got, end=end, due=NOW + 5) for got, end in zip(self.take(engine), ends, strict=True)]
        assert self.broker(engine).settle("me", settlements, NOW) == []
        assert self.take(engine, now=NOW + 4) == []
        again = self.take(engine, now=NOW + 5)
        assert [(got.id, got.crashes, got.offers) for got in again] == [("a", 0, 0), ("b", 1, 0), ("c", 0, 1)]

    def test_start_tells_which_leases_are_not_held(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b")], NOW)
        first, second = self.take(engine)
        tickets = [(first.tag, first.token, 7), (second.tag, second.token + 1, 8)]
        assert self.broker(engine).start("me", tickets, NOW) == [second.tag]
        assert self.broker(engine).start("other", tickets[:1], NOW) == [first.tag]
        assert self.broker(engine).find(["a", "b"], NOW) == {"a": Stage.STARTED, "b": Stage.LEASED}

    # --- leases that lapse ---------------------------------------------------------------------------------

    def test_lapsed_leases_are_taken_over_with_what_was_known(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message("a"), message("b")], NOW)
        first, second = self.take(engine, "dead", seconds=10.0)
        broker.start("dead", [(first.tag, first.token, 7)], NOW)
        heir = Lease(("q",), "heir", 100, 30.0)
        assert broker.recover(heir, NOW + 9) == []
        taken = broker.recover(heir, NOW + 10)
        assert [(got.id, got.token, got.ticket, got.former_owner) for got in taken] == [
            ("a", first.token + 1, 7, "dead"),
            ("b", second.token + 1, 0, "dead"),
        ]
        assert broker.settle("dead", [done(first), done(second)], NOW + 10) == [first.tag, second.tag]
        assert broker.start("dead", [(second.tag, second.token, 1)], NOW + 10) == [second.tag]
        assert broker.settle("heir", [done(taken[0]), done(taken[1], end=End.CRASHED)], NOW + 10) == []
        (again,) = self.take(engine, now=NOW + 11)
        assert (again.id, again.crashes, again.ticket, again.former_owner) == ("b", 1, 0, "")

    def test_extending_keeps_leases_and_tells_once_that_they_are_gone(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message("a")], NOW)
        self.take(engine, "slow", seconds=10.0)
        heir = Lease(("q",), "heir", 100, 30.0)
        assert broker.extend("slow", 10.0, NOW + 9) is True
        assert broker.recover(heir, NOW + 18) == []
        assert len(broker.recover(heir, NOW + 19)) == 1
        assert broker.extend("slow", 10.0, NOW + 20) is False
        assert broker.extend("never seen", 10.0, NOW) is True

    def test_leasing_keeps_the_owner_alive(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        self.take(engine, "busy", seconds=10.0)
        assert self.take(engine, "busy", now=NOW + 9, seconds=10.0) == []
        assert self.broker(engine).recover(Lease(("q",), "heir", 9, 30.0), NOW + 12) == []

    def test_recovering_takes_no_more_than_its_limit_and_queues(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message(f"{n}") for n in range(5)] + [message("x", "other")], NOW)
        self.take(engine, "dead", queues=("q", "other"), seconds=1.0)
        assert len(broker.recover(Lease(("q",), "heir", 3, 30.0), NOW + 2)) == 3
        assert len(broker.recover(Lease(("q",), "heir", 99, 30.0), NOW + 2)) == 2
        assert ids(broker.recover(Lease((), "heir", 99, 30.0), NOW + 2)) == ["x"]

    # --- looking -------------------------------------------------------------------------------------------

    def test_depth_and_find_tell_where_messages_are(self, engine: Engine) -> None:
        broker = self.broker(engine)
        batch = [message("leased"), message("waits"), message("later", due=NOW + 9), message("x", "other")]
        broker.publish(batch, NOW)
        self.take(engine, limit=1)
        assert broker.depth(["q", "empty"], NOW) == {"q": Depth(1, 1, 1), "empty": Depth()}
        assert broker.depth([], NOW)["other"] == Depth(ready=1)
        assert broker.depth(["q"], NOW + 9)["q"] == Depth(2, 0, 1)
        assert broker.find(["leased", "waits", "later", "unknown"], NOW) == {
            "leased": Stage.LEASED,
            "waits": Stage.QUEUED,
            "later": Stage.SCHEDULED,
        }

    def test_purge_deletes_what_waits_and_nothing_else(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message("leased"), message("a"), message("b", due=NOW + 9), message("x", "other")], NOW)
        (got,) = self.take(engine, limit=1)
        assert broker.purge(["q", "unknown"]) == 2
        assert broker.settle("me", [done(got)], NOW) == []
        assert broker.depth([], NOW)["q"] == Depth()
        assert broker.depth([], NOW)["other"] == Depth(ready=1)

    # --- exchanges -----------------------------------------------------------------------------------------

    def test_exchanges_lead_to_the_bound_queues(self, engine: Engine) -> None:
        broker = self.broker(engine)
        news, every = Exchange("news", "topic"), Exchange("every", "fanout")
        broker.declare([Queue("a", news, "sport.*"), Queue("b", news, "#"), Queue("c", every), Queue("d", every)])
        broker.declare([Queue("e", Exchange("direct"), "key")])
        sent = [
            message("1", "sport.ski", exchange="news"),
            message("2", "other", exchange="news"),
            message("3", exchange="every"),
            message("4", "key", exchange="direct"),
        ]
        assert broker.publish(sent, NOW) == []
        got = {name: ids(self.take(engine, queues=(name,))) for name in "abcde"}
        assert got == {"a": ["1"], "b": ["1", "2"], "c": ["3"], "d": ["3"], "e": ["4"]}

    def test_a_message_that_no_queue_is_bound_for_is_refused_alone(self, engine: Engine) -> None:
        refused = self.broker(engine).publish([message("a", exchange="nowhere"), message("b")], NOW)
        assert [(item.index, type(item.error)) for item in refused] == [(0, Unroutable)]
        assert ids(self.take(engine)) == ["b"]


class DeadLetterSuite(_Suite):
    """What every engine that keeps dead letters does."""

    @staticmethod
    def dead(engine: Engine) -> DeadLetters:
        """Return the dead letters of the engine under test."""
        assert engine.dead is not None
        return engine.dead

    def test_a_dead_message_is_kept_with_its_reason_and_can_be_sent_again(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a", priority=2)], NOW)
        (got,) = self.take(engine)
        self.broker(engine).settle("me", [done(got, end=End.CRASHED)], NOW)
        (got,) = self.take(engine)
        self.broker(engine).settle("me", [done(got, end=End.DEAD, reason="died twice")], NOW + 1)
        self.store(engine).put([Record("a", "FAILURE", b"{}")], NOW)
        (letter,) = self.dead(engine).browse()
        assert (letter.reason, letter.buried, letter.crashes) == ("died twice", NOW + 1, 1)
        assert (letter.message.id, letter.message.queue, letter.message.priority) == ("a", "q", 2)
        assert self.broker(engine).find(["a"], NOW) == {"a": Stage.DEAD}
        assert self.dead(engine).revive([letter.number], NOW + 2) == 1
        assert self.dead(engine).browse() == []
        assert self.store(engine).get(["a"], NOW + 2) == {}
        (again,) = self.take(engine, now=NOW + 2)
        assert (again.id, again.crashes, again.body) == ("a", 0, got.body)

    def test_letters_are_browsed_in_pages_picked_and_dropped(self, engine: Engine) -> None:
        dead = self.dead(engine)
        for n in range(5):
            dead.bury(message(f"id{n}"), f"reason {n}", NOW)
        page = dead.browse(limit=2)
        rest = dead.browse(after=page[-1].number, limit=100)
        assert [letter.message.id for letter in page + rest] == [f"id{n}" for n in range(5)]
        assert [letter.reason for letter in dead.pick([page[0].number], ["id4"])] == ["reason 0", "reason 4"]
        assert dead.pick([], []) == []
        assert len(dead.pick(None, None)) == 5
        assert dead.drop([page[0].number, page[1].number, 10**9]) == 2
        assert dead.revive([page[0].number], NOW) == 0
        assert len(dead.browse()) == 3


class StoreSuite(_Suite):
    """What every store does."""

    def test_what_is_put_is_read_and_unknown_ids_are_left_out(self, engine: Engine) -> None:
        record = Record("a", "STARTED", b'{"x": 1}', NOW + 10)
        assert self.store(engine).put([record], NOW) == []
        assert self.store(engine).get(["a", "b"], NOW) == {"a": record}
        assert self.store(engine).get(["a"], NOW + 10) == {}
        assert self.store(engine).get([], NOW) == {}

    def test_a_terminal_state_never_changes(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.put([Record("a", "STARTED", b"1"), Record("a", "SUCCESS", b"2")], NOW) == []
        assert store.put([Record("a", "FAILURE", b"3"), Record("b", "RETRY", b"4")], NOW) == ["a"]
        assert store.put([Record("b", "CUSTOM", b"5")], NOW) == []
        got = store.get(["a", "b"], NOW)
        assert (got["a"].state, got["a"].meta) == ("SUCCESS", b"2")
        assert (got["b"].state, got["b"].meta) == ("CUSTOM", b"5")

    def test_forgotten_and_expired_records_make_room(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put([Record("a", "SUCCESS", b"1"), Record("b", "SUCCESS", b"1", NOW + 1)], NOW)
        store.forget(["a", "unknown"])
        assert store.put([Record("a", "FAILURE", b"2"), Record("b", "FAILURE", b"2")], NOW + 1) == []
        assert {record.state for record in store.get(["a", "b"], NOW + 1).values()} == {"FAILURE"}

    def test_expire_drops_what_is_over_up_to_its_limit(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put([Record(f"{n}", "SUCCESS", b"", NOW + 1) for n in range(5)], NOW)
        store.put([Record("kept", "SUCCESS", b"")], NOW)
        store.revoke([Record("r", "REVOKED", b"", NOW + 1), Record("s", "REVOKED", b"")], NOW)
        assert store.expire(NOW) == 0
        assert store.expire(NOW + 1, limit=3) == 3
        assert store.expire(NOW + 1) == 3
        assert store.get(["kept"], NOW + 1).keys() == {"kept"}
        assert store.revoked(["r", "s"]) == {"s"}

    def test_revoking_ends_what_waits_and_marks_what_is_leased(self, engine: Engine) -> None:
        broker, store = self.broker(engine), self.store(engine)
        broker.publish([message("leased"), message("ready"), message("later", due=NOW + 99)], NOW)
        (got,) = self.take(engine, limit=1)
        names = ["leased", "ready", "later", "unknown"]
        ended = store.revoke([Record(name, "REVOKED", b"{}") for name in names], NOW)
        assert ended == ["ready", "later"]
        assert store.revoked([*names, "never"]) == set(names)
        assert store.get(names, NOW).keys() == {"ready", "later"}
        assert self.take(engine, now=NOW + 100) == []
        assert broker.settle("me", [done(got)], NOW) == []

    def test_a_watch_sees_what_is_stored_before_and_while_it_waits(self, engine: Engine) -> None:
        store = self.store(engine)
        watch = store.watch()
        store.put([Record("early", "SUCCESS", b"")], NOW)
        watch.add(["early", "late"])
        assert watch.wait(_DEADLINE) is True
        assert watch.wait(0.01) is False
        writer = threading.Timer(0.05, store.put, ([Record("late", "SUCCESS", b"")], NOW))
        writer.start()
        assert watch.wait(_DEADLINE) is True
        writer.join()
        watch.discard(["early", "late"])
        store.put([Record("other", "SUCCESS", b"")], NOW)
        assert watch.wait(0.01) is False
        watch.close()

    def test_a_watch_misses_nothing_when_results_are_forgotten(self, engine: Engine) -> None:
        store, watch = self.store(engine), self.store(engine).watch()
        for n in range(5):
            watch.add([f"{n}"])
            store.put([Record(f"{n}", "STARTED", b"")], NOW)
            assert watch.wait(_DEADLINE) is True
            store.put([Record(f"{n}", "SUCCESS", b"")], NOW)
            assert watch.wait(_DEADLINE) is True
            watch.discard([f"{n}"])
            store.forget([f"{n}"])
        watch.close()

    def test_a_watch_can_be_woken(self, engine: Engine) -> None:
        watch = self.store(engine).watch()
        waker = threading.Timer(0.05, watch.wake)
        waker.start()
        began = time.monotonic()
        assert watch.wait(_DEADLINE) is False
        assert time.monotonic() - began < _DEADLINE / 2
        waker.join()
        watch.close()


class AtomicSuite(_Suite):
    """What every engine whose broker and store are one database does."""

    @staticmethod
    def atomic(engine: Engine) -> Atomic:
        """Return the atomic commit of the engine under test."""
        assert engine.atomic is not None
        return engine.atomic

    def test_an_outcome_is_applied_whole(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        settlement = done(got, record=Record("a", "SUCCESS", b"1"), publish=(message("next"), message("a")))
        assert self.atomic(engine).commit("me", [settlement], NOW) == []
        assert self.store(engine).get(["a"], NOW)["a"].state == "SUCCESS"
        assert ids(self.take(engine)) == ["next", "a"]

    def test_of_a_stale_outcome_nothing_is_applied(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b")], NOW)
        first, second = self.take(engine, seconds=1.0)
        self.broker(engine).recover(Lease(("q",), "heir", 1, 30.0), NOW + 2)
        outcomes = [
            done(item, record=Record(item.id, "SUCCESS", b""), publish=(message(f"after {item.id}"),))
            for item in (first, second)
        ]
        assert self.atomic(engine).commit("me", outcomes, NOW + 2) == [first.tag]
        assert self.store(engine).get(["a", "b"], NOW + 2).keys() == {"b"}
        assert ids(self.take(engine, now=NOW + 2)) == ["after b"]

    def test_a_refused_record_still_ends_the_lease(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        self.store(engine).put([Record("a", "REVOKED", b"")], NOW)
        (got,) = self.take(engine)
        assert self.atomic(engine).commit("me", [done(got, record=Record("a", "SUCCESS", b""))], NOW) == []
        assert self.store(engine).get(["a"], NOW)["a"].state == "REVOKED"
        assert self.broker(engine).find(["a"], NOW) == {}

    def test_a_follow_up_that_cannot_be_routed_becomes_a_dead_letter(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        lost = message("lost", exchange="nowhere")
        assert self.atomic(engine).commit("me", [done(got, publish=(lost,))], NOW) == []
        assert engine.dead is not None
        (letter,) = engine.dead.browse()
        assert letter.message.id == "lost"
        assert "nowhere" in letter.reason


class BusSuite(_Suite):
    """What every bus does."""

    @staticmethod
    def bus(engine: Engine) -> Bus:
        """Return the bus of the engine under test."""
        assert engine.bus is not None
        return engine.bus

    def test_every_listener_of_a_topic_hears_what_is_sent_from_now_on(self, engine: Engine) -> None:
        bus = self.bus(engine)
        bus.send("t", [b"before"], NOW)
        one, two, other = bus.listen(["t"]), bus.listen(["u", "t"]), bus.listen(["u"])
        bus.send("t", [b"1", b"2"], NOW)
        assert one.receive(_DEADLINE) == [("t", b"1"), ("t", b"2")]
        assert two.receive(_DEADLINE) == [("t", b"1"), ("t", b"2")]
        assert other.receive(0.01) == []
        assert one.receive(0.01) == []
        for listener in (one, two, other):
            listener.close()

    def test_receiving_waits_for_what_is_sent_and_can_be_woken(self, engine: Engine) -> None:
        listener = self.bus(engine).listen(["t"])
        sender = threading.Timer(0.05, self.bus(engine).send, ("t", [b"1"], NOW))
        sender.start()
        assert listener.receive(_DEADLINE) == [("t", b"1")]
        sender.join()
        waker = threading.Timer(0.05, listener.wake)
        waker.start()
        began = time.monotonic()
        assert listener.receive(_DEADLINE) == []
        assert time.monotonic() - began < _DEADLINE / 2
        waker.join()
        listener.close()
