"""What becomes of messages whose owner has gone, as tests: leases that lapse, or a broker that notices by itself."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

from umbel.core.message import End
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import DEADLINE, Suite, done, ids, message, same


class LapseSuite(Suite):
    """What becomes of messages whose owner has gone."""

    def test_lapsed_leases_are_taken_over_with_what_was_known(self, engine: Engine) -> None:
        if not engine.caps.recovers:
            self.gone_owners_give_back_by_themselves(engine)
            return
        broker, now = self.broker(engine), self.now(engine)
        sent = [message("a"), message("b")]
        broker.publish(sent, now)
        first, second = self.take(engine, "dead", now, seconds=10.0)
        broker.start("dead", [(first.tag, first.token, 7)], now)
        heir = Lease(("q",), "heir", 100, 30.0)
        assert broker.recover(heir, now + 9) == []
        taken = broker.recover(heir, now + 10)
        assert [(got.id, got.token, got.ticket, got.former_owner) for got in taken] == [
            ("a", first.token + 1, 7, "dead"),
            ("b", second.token + 1, 0, "dead"),
        ]
        assert all(same(got, one) for got, one in zip(taken, sent, strict=True))
        assert broker.settle("dead", [done(first), done(second)], now + 10) == [first.tag, second.tag]
        assert broker.start("dead", [(second.tag, second.token, 1)], now + 10) == [second.tag]
        assert broker.settle("heir", [done(taken[0]), done(taken[1], end=End.CRASHED)], now + 10) == []
        (again,) = self.take(engine, now=now + 11)
        assert (again.id, again.crashes, again.ticket, again.former_owner) == ("b", 1, 0, "")
        assert again.token > taken[1].token

    def gone_owners_give_back_by_themselves(self, engine: Engine) -> None:
        """The lesser duty: the broker itself notices that an owner has gone, and `recover` has nothing to do."""
        broker = self.broker(engine)
        sent = [message("a"), message("b")]
        broker.publish(sent, self.now(engine))
        gone = open_engine(engine.url)
        first, _ = self.take(gone, "dead")
        assert broker.recover(Lease(("q",), "heir", 100, 30.0), self.now(engine) + 10**6) == []
        assert self.take(engine) == []
        gone.close()
        again = self.take(engine, wait=DEADLINE)
        assert ids(again) == ["a", "b"]
        assert all(same(got, one) for got, one in zip(again, sent, strict=True))
        assert broker.settle("dead", [done(first)], self.now(engine)) == [first.tag]
        assert broker.settle("me", [done(got) for got in again], self.now(engine)) == []

    def test_a_ticket_keeps_the_name_of_its_writer_however_often_it_is_taken_over(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a")], now)
        (first,) = self.take(engine, "writer", now, seconds=10.0)
        assert broker.start("writer", [(first.tag, first.token, 7)], now) == []
        if not engine.caps.recovers:  # there is nothing to take over, and what has started is still its owner's
            assert broker.recover(Lease(("q",), "heir", 100, 10.0), now + 10) == []
            assert broker.settle("writer", [done(first)], now) == []
            return
        broker.recover(Lease(("q",), "heir", 100, 10.0), now + 10)
        (again,) = broker.recover(Lease(("q",), "second", 100, 10.0), now + 20)
        assert (again.ticket, again.former_owner) == (7, "writer")
        broker.start("second", [(again.tag, again.token, 8)], now + 20)
        (last,) = broker.recover(Lease(("q",), "third", 100, 10.0), now + 30)
        assert (last.ticket, last.former_owner) == (8, "second")

    def test_extending_keeps_leases_and_tells_once_that_they_are_gone(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message("a")], now)
        self.take(engine, "slow", now, seconds=10.0)
        heir = Lease(("q",), "heir", 100, 30.0)
        assert broker.extend("slow", 10.0, now + 9) is True
        assert broker.recover(heir, now + 18) == []
        if engine.caps.recovers:
            assert len(broker.recover(heir, now + 19)) == 1
            assert broker.extend("slow", 10.0, now + 20) is False
        assert broker.extend("never seen", 10.0, now) is True

    def test_leasing_keeps_the_owner_alive(self, engine: Engine) -> None:
        now = self.now(engine)
        self.broker(engine).publish([message("a")], now)
        self.take(engine, "busy", now, seconds=10.0)
        assert self.take(engine, "busy", now=now + 9, seconds=10.0) == []
        assert self.broker(engine).recover(Lease(("q",), "heir", 9, 30.0), now + 12) == []

    def test_recovering_takes_no_more_than_its_limit_and_queues(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        broker.publish([message(f"{n}") for n in range(5)] + [message("x", "other")], now)
        assert len(self.take(engine, "dead", now, queues=("q", "other"), seconds=1.0)) == 6
        some, rest = Lease(("q",), "heir", 3, 30.0), Lease(("q",), "heir", 99, 30.0)
        counts = [len(broker.recover(some, now + 2)), len(broker.recover(rest, now + 2))]
        assert counts == ([3, 2] if engine.caps.recovers else [0, 0])
        assert ids(broker.recover(Lease((), "heir", 99, 30.0), now + 2)) == (["x"] if engine.caps.recovers else [])

    def test_what_waits_for_its_time_can_be_held_to_be_ended_and_is_never_given_out_before(
        self, engine: Engine
    ) -> None:
        broker, now = self.broker(engine), self.now(engine)
        later = [
            message(name, queue, due=now + due)
            for name, queue, due in (("b", "q", 200), ("a", "q", 100), ("c", "other", 50))
        ]
        broker.publish([*later, message("ready")], now)
        (ready,) = self.take(engine, queues=("q", "other"))
        assert (ready.id, broker.settle("me", [done(ready)], now)) == ("ready", [])
        lease = Lease(("q",), "me", 1, 30.0)
        if not engine.caps.counts:  # nobody tells what waits
            assert broker.lease_scheduled(lease, now) == []
            return
        (first,) = broker.lease_scheduled(lease, now)
        (second,) = broker.lease_scheduled(lease, now)
        assert (ids([first, second]), broker.lease_scheduled(lease, now)) == (["a", "b"], [])
        assert same(first, later[1])
        assert broker.depth(["q"], now)["q"].scheduled == 0
        assert broker.settle("me", [done(first)], now) == []
        assert broker.recover(Lease((), "heir", 100, 30.0, dead=("me",)), now) == []
        assert broker.depth(["q"], now)["q"].scheduled == 1
        assert self.take(engine) == []
        assert broker.settle("me", [done(second)], now) == [second.tag]
        rest = broker.lease_scheduled(lease._replace(owner="heir", queues=("q", "other"), limit=9), now)
        assert sorted(ids(rest)) == ["b", "c"]
