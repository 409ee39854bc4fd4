"""What a broker does that can hold messages for another one, and take over from owners known to be dead, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

from typing import Any

import pytest

from umbel.core.message import Delivery, End, Stage
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import NOW, Suite, done, message, same


def _held_elsewhere(id_: str, **fields: Any) -> Delivery:
    fields = {"tag": ("theirs", id_), "token": 1, "ticket": 7, "published": NOW - 5, **fields}
    of_message = {name: fields[name] for name in ("priority", "expires", "due", "generation") if name in fields}
    sent = message(id_, **of_message)
    return Delivery(id_, sent.task, "q", sent.head, sent.body, **fields)


class ShelfSuite(Suite):
    """What every broker does that remembers for another one what has started (`caps.remembers`)."""

    @staticmethod
    def adopt(engine: Engine, *deliveries: Delivery, owner: str = "me", now: float = NOW) -> list[Delivery]:
        if not engine.caps.remembers:
            pytest.skip("this broker does not remember what has started")
        assert engine.broker is not None
        return engine.broker.adopt(Lease(("q",), owner, 100, 10.0), deliveries, now)

    def test_what_is_adopted_is_held_and_ready_for_nobody(self, engine: Engine) -> None:
        first, second = _held_elsewhere("a", priority=3, expires=NOW + 5), _held_elsewhere("b", ticket=0)
        held = self.adopt(engine, first, second)
        assert all(same(got, sent) for got, sent in zip(held, (first, second), strict=True))
        assert [(got.queue, got.priority, got.expires) for got in held] == [("q", 3, NOW + 5), ("q", 0, 0.0)]
        assert self.take(engine, "other") == []
        if engine.caps.find:
            assert self.broker(engine).find(["a", "b"], NOW) == {"a": Stage.STARTED, "b": Stage.LEASED}
        assert self.broker(engine).settle("other", [done(held[0])], NOW) == [held[0].tag]
        assert self.broker(engine).settle("me", [done(got) for got in held], NOW) == []
        assert self.broker(engine).settle("me", [done(held[0])], NOW) == [held[0].tag]
        assert self.broker(engine).recover(Lease((), "heir", 9, 30.0), NOW + 60) == []

    def test_adopting_nothing_is_nothing(self, engine: Engine) -> None:
        assert self.adopt(engine) == []

    def test_an_heir_finds_ticket_counts_and_owner_of_what_was_adopted(self, engine: Engine) -> None:
        self.adopt(engine, _held_elsewhere("a", crashes=2, offers=1))
        broker, heir = self.broker(engine), Lease(("q",), "heir", 9, 30.0)
        assert broker.recover(heir, NOW + 9) == []
        assert broker.extend("me", 10.0, NOW + 9) is True
        assert broker.recover(heir, NOW + 18) == []
        (got,) = broker.recover(heir, NOW + 19)
        assert (got.id, got.ticket, got.former_owner) == ("a", 7, "me")
        assert (got.crashes, got.offers) == (2, 1)
        assert got.published in {NOW - 5, 0.0}
        assert broker.extend("me", 10.0, NOW + 19) is False

    def test_adopted_messages_go_back_and_are_counted_like_others(self, engine: Engine) -> None:
        held = self.adopt(engine, _held_elsewhere("a", crashes=2))
        assert self.broker(engine).settle("me", [done(held[0], end=End.CRASHED)], NOW) == []
        (again,) = self.take(engine, "other", now=NOW + 1)
        assert (again.id, again.crashes, again.ticket) == ("a", 3, 0)
        assert again.token > held[0].token

    def test_adopting_again_changes_the_ticket_and_adds_nothing(self, engine: Engine) -> None:
        (first,) = self.adopt(engine, _held_elsewhere("a"))
        (held,) = self.adopt(engine, _held_elsewhere("a", ticket=8))
        assert (held.tag, held.token) == (first.tag, first.token)
        assert self.adopt(engine, _held_elsewhere("a", ticket=9), owner="other") == []
        (next_,) = self.adopt(engine, _held_elsewhere("a", generation=1), owner="other")
        assert next_.tag != held.tag
        (got,) = self.broker(engine).recover(Lease((), "heir", 9, 30.0, (), ("me",)), NOW)
        assert (got.id, got.generation, got.ticket) == ("a", 0, 8)

    def test_other_messages_beside_one_adopted_before_are_adopted(self, engine: Engine) -> None:
        (first,) = self.adopt(engine, _held_elsewhere("a"))
        held = self.adopt(engine, _held_elsewhere("b"), _held_elsewhere("a"), _held_elsewhere("b", ticket=8))
        assert [got.id for got in held] == ["b", "a", "b"]
        assert [got.tag for got in held] == [held[0].tag, first.tag, held[0].tag]
        assert held[0].tag != first.tag
        assert self.broker(engine).depth(["q"], NOW)["q"].leased == 2 or not engine.caps.counts

    def test_a_copy_of_what_an_heir_holds_is_not_adopted(self, engine: Engine) -> None:
        self.adopt(engine, _held_elsewhere("a"))
        (taken,) = self.broker(engine).recover(Lease(("q",), "heir", 9, 30.0, (), ("me",)), NOW)
        assert self.adopt(engine, _held_elsewhere("a", token=taken.token), owner="other") == []
        (held,) = self.adopt(engine, _held_elsewhere("a", ticket=8), owner="heir")
        assert (held.tag, held.token) == (taken.tag, taken.token)
        (newer,) = self.adopt(engine, _held_elsewhere("a", token=taken.token + 1), owner="other")
        assert self.broker(engine).settle("heir", [done(taken)], NOW) == [taken.tag]
        assert self.broker(engine).settle("other", [done(newer)], NOW) == []

    def test_what_has_ended_here_is_adopted_anew(self, engine: Engine) -> None:
        held = self.adopt(engine, _held_elsewhere("a"), _held_elsewhere("b"))
        assert self.broker(engine).settle("me", [done(held[0])], NOW) == []
        again = self.adopt(engine, _held_elsewhere("a"), _held_elsewhere("b"), owner="other")
        assert [got.id for got in again] == ["a"]

    def test_a_higher_token_ends_a_lease_that_its_owner_has_let_go(self, engine: Engine) -> None:
        (first,) = self.adopt(engine, _held_elsewhere("a"))
        (again,) = self.adopt(engine, _held_elsewhere("a", token=2, crashes=1), owner="other")
        assert (again.token, again.crashes) == (2, 1)
        assert self.adopt(engine, _held_elsewhere("a"), owner="third") == []
        assert self.broker(engine).settle("me", [done(first)], NOW) == [first.tag]
        (own,) = self.adopt(engine, _held_elsewhere("a", token=3), owner="other")
        assert self.broker(engine).settle("other", [done(again), done(own)], NOW) == [again.tag]
        assert self.broker(engine).recover(Lease((), "heir", 9, 30.0), NOW + 60) == []

    def test_what_waits_here_is_not_adopted_where_publishing_knows_it_again(self, engine: Engine) -> None:
        self.broker(engine).publish([message("a")], NOW)
        held = self.adopt(engine, _held_elsewhere("a"))
        assert [got.id for got in held] == ([] if engine.caps.once else ["a"])
        assert [got.id for got in self.take(engine, "other")] == ["a"]


class DeadOwnerSuite(Suite):
    """What every broker does that takes over from dead owners (`caps.recovers`)."""

    def test_an_owner_known_to_be_dead_is_taken_over_from_at_once(self, engine: Engine) -> None:
        if not engine.caps.recovers:
            pytest.skip("this broker gives back what dead owners held by itself")
        broker = self.broker(engine)
        broker.publish([message("a"), message("b")], NOW)
        (first,) = self.take(engine, "dead", limit=1)
        self.take(engine, "alive", limit=1)
        heir = Lease(("q",), "heir", 9, 30.0, (), ("dead", "unknown", "heir"))
        (got,) = broker.recover(heir, NOW + 1)
        assert (got.id, got.former_owner, got.token) == ("a", "dead", first.token + 1)
        assert broker.recover(heir, NOW + 1) == []
        assert broker.settle("dead", [done(first)], NOW + 1) == [first.tag]
        assert broker.settle("heir", [done(got)], NOW + 1) == []
