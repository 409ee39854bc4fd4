"""What every store, bus, atomic commit and keeper of dead letters does, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from umbel.core.message import Depth, End, Settlement, Stage
from umbel.engine.seam import Atomic, Bus, DeadLetters, Engine, FollowUps, Lease, Pieces
from umbel.testing.conformance_parts import DEADLINE, NOW, Suite, done, eventually, ids, message, record, same


class DeadLetterSuite(Suite):
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
        if engine.store is not None:
            engine.store.put([record("a", "FAILURE")], NOW)
        (letter,) = self.dead(engine).browse()
        assert (letter.reason, letter.buried, letter.crashes) == ("died twice", NOW + 1, 1)
        assert (letter.message.id, letter.message.queue, letter.message.priority) == ("a", "q", 2)
        if engine.caps.find:
            assert self.broker(engine).find(["a"], NOW) == {"a": Stage.DEAD}
        assert self.dead(engine).revive([letter.number], NOW + 2) == 1
        assert self.dead(engine).browse() == []
        assert engine.store is None or engine.store.get(["a"], NOW + 2) == {}
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


class StoreSuite(Suite):
    """What every store does."""

    def test_what_is_put_is_read_and_unknown_ids_are_left_out(self, engine: Engine) -> None:
        store = self.store(engine)
        seconds = 10.0 if engine.caps.expiry == "caller" else 1.0
        put = record("a", "STARTED", {"x": 1}, NOW + seconds)
        assert store.put([put], NOW) == []
        got = store.get(["a", "b"], NOW)
        assert list(got) == ["a"]
        assert (got["a"].id, got["a"].state, got["a"].meta) == (put.id, put.state, put.meta)
        assert store.get([], NOW) == {}
        if engine.caps.expiry == "caller":
            assert got["a"].expires == put.expires
            assert store.get(["a"], NOW + seconds) == {}
        else:
            assert eventually(lambda: store.get(["a"], NOW) == {}, 3)

    def test_a_terminal_state_never_changes(self, engine: Engine) -> None:
        store = self.store(engine)
        first, last = record("a", "SUCCESS", 2), record("b", "CUSTOM", 5)
        assert store.put([record("a", "STARTED", 1), first], NOW) == []
        assert store.put([record("a", "FAILURE", 3), record("b", "RETRY", 4)], NOW) == ["a"]
        assert store.put([last], NOW) == []
        got = store.get(["a", "b"], NOW)
        assert (got["a"].state, got["a"].meta) == ("SUCCESS", first.meta)
        assert (got["b"].state, got["b"].meta) == ("CUSTOM", last.meta)

    def test_forgotten_and_expired_records_make_room(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put([record("a", "SUCCESS", 1), record("b", "SUCCESS", 1, NOW + 1)], NOW)
        store.forget(["a", "unknown"])
        if engine.caps.expiry != "caller":
            assert eventually(lambda: store.get(["b"], NOW) == {}, 3)
        assert store.put([record("a", "FAILURE", 2), record("b", "FAILURE", 2)], NOW + 1) == []
        assert {record.state for record in store.get(["a", "b"], NOW + 1).values()} == {"FAILURE"}

    def test_expire_drops_what_is_over_up_to_its_limit(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put([record(f"{n}", "SUCCESS", expires=NOW + 1) for n in range(5)], NOW)
        store.put([record("kept", "SUCCESS")], NOW)
        store.revoke([record("r", "REVOKED", expires=NOW + 1), record("s", "REVOKED")], NOW)
        if engine.caps.expiry != "caller":  # then it goes by itself, and the call may find nothing
            assert eventually(lambda: store.get([f"{n}" for n in range(5)], NOW) == {}, 3)
            assert eventually(lambda: (store.expire(NOW + 1), store.revoked(["r", "s"]))[1] == {"s"}, 3)
            assert store.get(["kept"], NOW).keys() == {"kept"}
            return
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
        ended = store.revoke([record(name, "REVOKED") for name in names], NOW)
        if not engine.caps.remove:  # then the worker that gets them ends them
            assert ended == []
            assert store.revoked([*names, "never"]) == set(names)
            assert store.get(names, NOW) == {}
            assert sorted(ids(self.take(engine, now=NOW + 100))) == ["later", "ready"]
            assert broker.settle("me", [done(got)], NOW) == []
            return
        assert ended == ["ready", "later"]
        assert store.revoked([*names, "never"]) == set(names)
        assert store.get(names, NOW).keys() == {"ready", "later"}
        assert self.take(engine, now=NOW + 100) == []
        assert broker.settle("me", [done(got)], NOW) == []

    def test_a_revoked_message_that_something_follows_from_reaches_a_worker_at_once(self, engine: Engine) -> None:
        broker, store = self.broker(engine), self.store(engine)
        body = b'[[], {}, {"callbacks": null, "chord": {"task": "body"}}]'
        sent = [message("ready"), message("later", due=NOW + 99)]
        broker.publish([msgspec.structs.replace(one, body=body) for one in sent], NOW)
        ended = store.revoke([record("ready", "REVOKED"), record("later", "REVOKED")], NOW)
        assert ended == (["ready", "later"] if engine.caps.remove else [])
        assert {one.state for one in store.get(ended, NOW).values()} <= {"REVOKED"}
        held = self.take(engine, now=NOW if engine.caps.remove else NOW + 100)
        assert sorted(ids(held)) == ["later", "ready"]
        assert store.revoked(["ready", "later"]) == {"ready", "later"}

    def test_a_watch_sees_what_is_stored_before_and_while_it_waits(self, engine: Engine) -> None:
        store = self.store(engine)
        watch = store.watch()
        store.put([record("early", "SUCCESS")], NOW)
        watch.add(["early", "late"])
        assert watch.wait(DEADLINE) is True
        assert watch.wait(0.01) is False
        writer = threading.Timer(0.05, store.put, ([record("late", "SUCCESS")], NOW))
        writer.start()
        assert watch.wait(DEADLINE) is True
        writer.join()
        watch.discard(["early", "late"])
        store.put([record("other", "SUCCESS")], NOW)
        assert watch.wait(0.01) is False
        watch.close()

    def test_a_watch_misses_nothing_when_results_are_forgotten(self, engine: Engine) -> None:
        store, watch = self.store(engine), self.store(engine).watch()
        for n in range(5):
            watch.add([f"{n}"])
            store.put([record(f"{n}", "STARTED")], NOW)
            assert watch.wait(DEADLINE) is True
            store.put([record(f"{n}", "SUCCESS")], NOW)
            assert watch.wait(DEADLINE) is True
            watch.discard([f"{n}"])
            store.forget([f"{n}"])
        watch.close()

    def test_a_watch_can_be_woken(self, engine: Engine) -> None:
        watch = self.store(engine).watch()
        waker = threading.Timer(0.05, watch.wake)
        waker.start()
        began = time.monotonic()
        assert watch.wait(DEADLINE) is False
        assert time.monotonic() - began < DEADLINE / 2
        waker.join()
        watch.close()


class AtomicSuite(Suite):
    """What every engine whose broker and store are one database does."""

    @staticmethod
    def atomic(engine: Engine) -> Atomic:
        """Return the atomic commit of the engine under test."""
        assert engine.atomic is not None
        return engine.atomic

    def test_an_outcome_is_applied_whole(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        settlement = done(got, record=record("a", "SUCCESS"), publish=(message("next"), message("a")))
        assert self.atomic(engine).commit("me", [settlement], NOW) == []
        assert self.store(engine).get(["a"], NOW)["a"].state == "SUCCESS"
        assert ids(self.take(engine)) == ["next", "a"]

    def test_of_a_stale_outcome_nothing_is_applied(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a"), message("b")], NOW)
        first, second = self.take(engine, seconds=1.0)
        self.broker(engine).recover(Lease(("q",), "heir", 1, 30.0), NOW + 2)
        outcomes = [
            done(item, record=record(item.id, "SUCCESS"), publish=(message(f"after {item.id}"),))
            for item in (first, second)
        ]
        assert self.atomic(engine).commit("me", outcomes, NOW + 2) == [first.tag]
        assert self.store(engine).get(["a", "b"], NOW + 2).keys() == {"b"}
        assert ids(self.take(engine, now=NOW + 2)) == ["after b"]

    def test_a_refused_record_still_ends_the_lease(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        self.store(engine).put([record("a", "REVOKED")], NOW)
        (got,) = self.take(engine)
        assert self.atomic(engine).commit("me", [done(got, record=record("a", "SUCCESS"))], NOW) == []
        assert self.store(engine).get(["a"], NOW)["a"].state == "REVOKED"
        assert self.broker(engine).depth(["q"], NOW)["q"] == Depth()

    def test_a_follow_up_that_cannot_be_routed_becomes_a_dead_letter(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        lost = message("lost", exchange="nowhere")
        assert self.atomic(engine).commit("me", [done(got, publish=(lost,))], NOW) == []
        assert engine.dead is not None
        (letter,) = engine.dead.browse()
        assert letter.message.id == "lost"
        assert "nowhere" in letter.reason

    @staticmethod
    def follow_ups(engine: Engine) -> FollowUps:
        """Return what goes on with follow-ups; skip where there is no such thing."""
        if engine.follow_ups is None:
            pytest.skip("this engine leases follow-ups as it does everything else")
        return engine.follow_ups

    def test_who_settles_may_go_on_with_what_follows(self, engine: Engine) -> None:
        broker, follow_ups = self.broker(engine), self.follow_ups(engine)
        broker.publish([message("a")], NOW)
        (got,) = self.take(engine)
        settlement = done(got, record=record("a", "SUCCESS"), publish=(message("next"),))
        follower = follow_ups.leased(settlement)
        assert follower is not None
        assert same(follower, message("next"))
        assert follow_ups.go_on("me", "lane", 7, settlement, NOW).held
        assert self.store(engine).get(["a"], NOW)["a"].state == "SUCCESS"
        assert self.take(engine) == []
        assert broker.start("me", [(follower.tag, follower.token, 9)], NOW) == []
        tag = follow_ups.unpack_tag(follow_ups.pack_tag(follower.tag))
        last = Settlement(tag, follower.token, record=record("next", "SUCCESS"))
        assert self.atomic(engine).commit("me", [last], NOW) == []
        assert self.take(engine) == []
        assert broker.depth(["q"], NOW)["q"] == Depth()

    def test_going_on_again_changes_nothing_and_is_answered_alike(self, engine: Engine) -> None:
        broker, follow_ups = self.broker(engine), self.follow_ups(engine)
        broker.publish([message("a")], NOW)
        (got,) = self.take(engine)
        first = done(got, publish=(message("b"),))
        assert [follow_ups.go_on("me", "lane", 7, first, NOW).held for _ in range(2)] == [True, True]
        follower = follow_ups.leased(first)
        assert follower is not None
        broker.publish([message("waits")], NOW)
        second = done(follower, publish=(message("c"),))
        assert [follow_ups.go_on("me", "lane", 8, second, NOW).held for _ in range(2)] == [False, False]
        assert not follow_ups.go_on("me", "lane", 7, first, NOW).held
        assert ids(self.take(engine)) == ["waits", "c"]
        assert broker.depth(["q"], NOW)["q"].leased == 2

    def test_who_goes_on_may_read_a_piece_in_the_same_call(self, engine: Engine) -> None:
        follow_ups, store = self.follow_ups(engine), self.store(engine)
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        store.put_plans({"flow:1": b"one", "flow:2": b"two"}, NOW)
        first = done(got, publish=(message("b"),))
        gone = follow_ups.go_on("me", "lane", 7, first, NOW, Pieces(lambda: "flow:2"))
        assert gone == (True, b"two")
        follower = follow_ups.leased(first)
        assert follower is not None
        second = done(follower, publish=(message("c"),))
        gone = follow_ups.go_on("me", "lane", 8, second, NOW, Pieces(lambda: "flow:3", ["flow:2"], time.time() - 1))
        assert gone == (True, None)
        assert store.take_plans(["flow:1", "flow:2"], time.time(), 0.0) == {"flow:1": b"one"}

    def test_what_a_dead_owner_went_on_with_is_known_as_started(self, engine: Engine) -> None:
        follow_ups = self.follow_ups(engine)
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        assert follow_ups.go_on("me", "lane", 7, done(got, publish=(message("next"),)), NOW).held
        (heir,) = self.broker(engine).recover(Lease(("q",), "heir", 5, 30.0, dead=("me",)), NOW)
        assert (heir.id, heir.ticket, heir.former_owner) == ("next", 7, "me")
        assert not follow_ups.go_on("me", "lane", 8, done(got, publish=(message("again"),)), NOW).held
        assert self.take(engine) == []

    def test_nobody_goes_on_past_others_that_wait_nor_with_what_may_be_revoked(self, engine: Engine) -> None:
        broker, follow_ups = self.broker(engine), self.follow_ups(engine)
        broker.publish([message("a"), message("b")], NOW)
        first, second = self.take(engine)
        broker.publish([message("waits")], NOW)
        assert not follow_ups.go_on("me", "lane", 7, done(first, publish=(message("next"),)), NOW).held
        assert ids(self.take(engine)) == ["waits", "next"]
        self.store(engine).revoke([record("anything", "REVOKED")], NOW)
        assert not follow_ups.go_on("me", "lane", 8, done(second, publish=(message("last"),)), NOW).held
        assert ids(self.take(engine)) == ["last"]

    def test_only_one_message_that_may_run_at_once_is_gone_on_with(self, engine: Engine) -> None:
        follow_ups = self.follow_ups(engine)
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        follower = message("next")
        others = (message("later", due=NOW + 60), message("over", expires=NOW + 60), message("bound", exchange="some"))
        assert follow_ups.leased(done(got, publish=(follower,))) is not None
        assert [follow_ups.leased(done(got, publish=(other,))) for other in others] == [None] * 3
        assert follow_ups.leased(done(got, publish=(follower, message("second")))) is None
        assert follow_ups.leased(done(got)) is None


class BusSuite(Suite):
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
        assert one.receive(DEADLINE) == [("t", b"1"), ("t", b"2")]
        assert two.receive(DEADLINE) == [("t", b"1"), ("t", b"2")]
        assert other.receive(0.01) == []
        assert one.receive(0.01) == []
        for listener in (one, two, other):
            listener.close()

    def test_receiving_waits_for_what_is_sent_and_can_be_woken(self, engine: Engine) -> None:
        listener = self.bus(engine).listen(["t"])
        sender = threading.Timer(0.05, self.bus(engine).send, ("t", [b"1"], NOW))
        sender.start()
        assert listener.receive(DEADLINE) == [("t", b"1")]
        sender.join()
        waker = threading.Timer(0.05, listener.wake)
        waker.start()
        began = time.monotonic()
        assert listener.receive(DEADLINE) == []
        assert time.monotonic() - began < DEADLINE / 2
        waker.join()
        listener.close()
