"""What every store that keeps groups does, and what an atomic commit does with them, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import threading
import time

from umbel.core.message import Joined, Part
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import DEADLINE, NOW, Suite, done, eventually, ids, message, same


def _part(index: int, payload: bytes = b"", group: str = "g", size: int | None = 3) -> Part:
    return Part(group, index, payload or b"%d" % index, size, message(f"body of {group}"))


class JoinSuite(Suite):
    """What every store that keeps groups does."""

    def test_a_group_is_complete_once_with_its_payloads_by_index(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.join([_part(2), _part(0)], NOW) == []
        assert store.joined(["g"]) == {}
        (joined,) = store.join([_part(1)], NOW)
        assert (joined.group, joined.payloads) == ("g", (b"0", b"1", b"2"))
        assert joined.body is not None
        assert same(joined.body, message("body of g"))
        assert store.joined(["g", "unknown"]) == {"g": (b"0", b"1", b"2")}
        assert store.join([_part(0), _part(2)], NOW) == []

    def test_the_first_payload_of_an_index_stays_and_repeats_count_once(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.join([_part(0, b"A"), _part(1, b"same"), _part(0, b"A'"), _part(0, b"A''")], NOW) == []
        (joined,) = store.join([_part(2, b"same"), _part(2, b"other")], NOW)
        assert joined.payloads == (b"A", b"same", b"same")

    def test_the_call_that_completed_a_group_is_answered_again_until_that_is_confirmed(self, engine: Engine) -> None:
        store = self.store(engine)
        store.join([_part(0), _part(1)], NOW)
        store.confirm(["g", "unknown"])
        first = store.join([_part(2)], NOW)
        assert store.join([_part(0), _part(1)], NOW) == []
        assert store.expect({"g": 3}, NOW) == []
        assert store.join([_part(2), _part(2, b"late")], NOW) == first
        store.confirm(["g"])
        assert store.join([_part(2)], NOW) == []
        assert store.joined(["g"]) == {"g": (b"0", b"1", b"2")}

    def test_the_size_may_come_last(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.join([_part(0, size=None), _part(1, size=None)], NOW) == []
        first = store.expect({"g": 2, "other": 2}, NOW)
        assert [(joined.group, joined.payloads) for joined in first] == [("g", (b"0", b"1"))]
        assert store.expect({"g": 2}, NOW) == first
        assert store.join([_part(1, size=None)], NOW) == []
        store.confirm(["g"])
        assert store.expect({"g": 2}, NOW) == []
        assert store.expect({"empty": 0}, NOW) == [Joined("empty", ())]
        assert store.joined(["empty"]) == {"empty": ()}

    def test_whoever_tells_the_size_last_is_given_a_body_that_the_parts_brought(self, engine: Engine) -> None:
        store = self.store(engine)
        parts = [Part("g", index, b"", None, body) for index, body in enumerate((None, message("a"), None))]
        store.join(parts, NOW)
        store.join([Part("bare", 0, b"")], NOW)
        told = {joined.group: joined.body for joined in store.expect({"g": 3, "bare": 1}, NOW)}
        assert told["bare"] is None
        assert told["g"] is not None
        assert same(told["g"], message("a"))

    def test_a_part_that_brings_no_body_completes_the_group_with_the_body_of_another(self, engine: Engine) -> None:
        store = self.store(engine)
        store.join([_part(0, size=2)], NOW)
        for _ in range(2):
            (joined,) = store.join([Part("g", 1, b"1", 2)], NOW)
            assert joined.body is not None
            assert same(joined.body, message("body of g"))
        assert [late.group for late in store.unconfirmed(NOW + 1)] == ["g"]

    def test_complete_groups_that_nobody_confirms_are_found(self, engine: Engine) -> None:
        store = self.store(engine)
        store.join([_part(0, group="open")], NOW)
        store.join([_part(0, group="joined", size=1)], NOW)
        store.join([_part(0, group="sized", size=None), Part("bare", 0, b"", 1)], NOW)
        store.expect({"sized": 1}, NOW + 1)
        assert store.unconfirmed(NOW) == []
        assert [joined.group for joined in store.unconfirmed(NOW + 1)] == ["joined"]
        assert len(store.join([_part(0, group="joined", size=1)], NOW + 2)) == 1
        late = store.unconfirmed(NOW + 2)
        assert [joined.group for joined in late] == ["joined", "sized"]
        for joined in late:
            assert joined.body is not None
            assert same(joined.body, message(f"body of {joined.group}"))
        assert [joined.group for joined in store.unconfirmed(NOW + 2, 1)] == ["joined"]
        store.confirm(["joined", "bare"])
        assert [joined.group for joined in store.unconfirmed(NOW + 2)] == ["sized"]
        store.forget_groups(["sized"])
        assert store.unconfirmed(NOW + 2) == []

    def test_a_group_that_is_joined_anew_is_found_once_that_is_not_said_again(self, engine: Engine) -> None:
        store = self.store(engine)

        def mark(payload: bytes, due: float) -> None:
            part = Part("mark", 0, payload, 1, message(f"watch over {payload.decode()}"), "me")
            assert [joined.payloads for joined in store.join([part], due, True)] == [(payload,)]

        mark(b"1", NOW + 10)
        mark(b"2", NOW + 20)
        assert store.unconfirmed(NOW + 20) == []
        (late,) = store.unconfirmed(NOW + 21)
        assert late.body is not None
        assert same(late.body, message("watch over 2"))
        assert store.joined(["mark"]) == {"mark": (b"2",)}
        store.confirm(["mark"])
        assert store.unconfirmed(NOW + 21) == []
        assert store.joined(["mark"]) == {"mark": (b"2",)}
        mark(b"3", NOW + 30)
        assert [late.group for late in store.unconfirmed(NOW + 31)] == ["mark"]
        store.forget_groups(["mark"])
        assert store.unconfirmed(NOW + 31) == []
        assert store.joined(["mark"]) == {}

    def test_the_first_size_stays_and_an_index_outside_it_is_ignored(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.join([_part(7, size=None), _part(-1, size=None), _part(0, size=None)], NOW) == []
        assert store.expect({"g": 2}, NOW) == []
        assert store.expect({"g": 1}, NOW) == []
        assert store.join([_part(5, size=1)], NOW) == []
        (joined,) = store.join([_part(1, size=9)], NOW)
        assert joined.payloads == (b"0", b"1")

    def test_groups_do_not_mix_and_strange_names_are_only_names(self, engine: Engine) -> None:
        names = ["'", "%", "", "ü", "g", "G"]
        store = self.store(engine)
        assert store.join([_part(0, group=name, size=2) for name in names], NOW) == []
        complete = store.join([_part(1, name.encode(), group=name, size=2) for name in names], NOW)
        assert [(joined.group, joined.payloads[1]) for joined in complete] == [
            (name, name.encode() or b"1") for name in names
        ]

    def test_parts_that_no_group_can_have_are_ignored(self, engine: Engine) -> None:
        store = self.store(engine)
        odd = [_part(index) for index in (2**31, 2**70, 10**400, -(2**70))]
        odd += [_part(0, size=2**70), _part(0, size=-1), _part(0, group="half \ud800"), _part(1, group="half \ud800")]
        odd.append(Part("g", 1, b"1", 3, None, "\udfff"))
        assert store.join(odd, NOW) == []
        (joined,) = store.join([*(_part(index) for index in range(3)), *odd], NOW)
        assert joined.payloads == (b"0", b"1", b"2")

    def test_nothing_of_an_open_group_expires(self, engine: Engine) -> None:
        store = self.store(engine)
        store.join([_part(0), _part(1)], NOW)
        assert store.expire(NOW + 10**9) == 0
        assert len(store.join([_part(2)], NOW + 10**9)) == 1
        assert store.expire(NOW + 10**9) == 0
        assert store.joined(["g"]) == {"g": (b"0", b"1", b"2")}

    def test_a_forgotten_group_stays_closed_as_long_as_was_said(self, engine: Engine) -> None:
        store = self.store(engine)
        store.join([_part(index, group=name, size=2) for name in ("g", "h") for index in range(2)], NOW)
        store.forget_groups(["g", "unknown"], NOW + 10 if engine.caps.expiry == "caller" else time.time() + 1)
        store.forget_groups(["h"])
        assert store.joined(["g", "h"]) == {}
        late = [_part(0, size=1)]
        assert store.join(late, NOW + 9) == []
        assert store.expect({"g": 0}, NOW + 9) == []
        assert len(store.join([_part(0, group="h", size=1)], NOW)) == 1
        if engine.caps.expiry != "caller":
            assert eventually(lambda: len(store.join(late, NOW + 10)) == 1, 3)
            return
        assert len(store.join(late, NOW + 10)) == 1
        assert store.expire(NOW + 10) == 1
        assert store.join([_part(0, group="unknown", size=1)], NOW + 10) != []

    def test_of_many_threads_that_join_one_completes_the_group(self, engine: Engine) -> None:
        store, told = self.store(engine), list[Joined]()

        def join(first: int) -> None:
            for index in range(first, 40, 4):
                told.extend(store.join([_part(index, size=40), _part((index + 1) % 40, b"", size=40)], NOW))

        threads = [threading.Thread(target=join, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert {joined.payloads for joined in told} == {tuple(b"%d" % n for n in range(40))}
        store.confirm(["g"])
        assert store.join([_part(index, size=40) for index in range(40)], NOW) == []


class AtomicJoinSuite(Suite):
    """What an atomic commit does with parts."""

    def test_the_last_part_publishes_the_body_in_the_same_step(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a"), message("b"), message("c")], NOW)
        taken = self.take(engine)
        outcomes = [done(item, parts=(_part(n),)) for n, item in enumerate(taken)]
        assert engine.atomic.commit("me", outcomes[:2], NOW) == []
        assert self.take(engine) == []
        assert engine.atomic.commit("me", outcomes[2:], NOW) == []
        assert ids(self.take(engine)) == ["body of g"]
        assert self.store(engine).joined(["g"]) == {"g": (b"0", b"1", b"2")}
        assert self.store(engine).join([_part(2)], NOW) == []
        assert self.store(engine).unconfirmed(NOW + 1) == []

    def test_a_body_may_go_to_a_queue_that_nobody_has_declared(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        part = Part("g", 0, b"0", 1, message("body", "q.umbel"), "a")
        assert engine.atomic.commit("me", [done(got, parts=(part,))], NOW) == []
        assert self.broker(engine).depth(["q.umbel"], NOW)["q.umbel"].ready == 1
        (body,) = self.take(engine, queues=("q.umbel",))
        assert same(body, message("body", "q.umbel"))

    def test_parts_that_share_a_message_and_parts_that_do_not_are_applied_in_one_step(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message(name) for name in "abcd"], NOW)
        taken = self.take(engine)
        bodies = {group: message(f"body of {group}") for group in "xyz"}
        parts = [
            [Part("x", 0, b"0", 3, bodies["x"]), Part("y", 0, b"0", 1, bodies["y"])],
            [Part("x", 1, b"1", 3, bodies["x"])],
            [Part("x", 2, b"2", 3, bodies["x"]), Part("z", 0, b"0", 2, bodies["z"])],
            [Part("z", 1, b"1", 2, None), Part("bare", 0, b"0", 1)],
        ]
        outcomes = [done(item, parts=tuple(own)) for item, own in zip(taken, parts, strict=True)]
        assert engine.atomic.commit("me", outcomes, NOW) == []
        assert sorted(ids(self.take(engine))) == ["body of x", "body of y", "body of z"]
        assert self.store(engine).joined(["x", "y", "z", "bare"]).keys() == {"x", "y", "z", "bare"}

    def test_a_size_that_comes_after_the_last_outcome_is_given_the_body(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a"), message("b")], NOW)
        body = message("body")
        outcomes = [
            done(item, parts=(Part("g", n, b"%d" % n, None, body),)) for n, item in enumerate(self.take(engine))
        ]
        assert engine.atomic.commit("me", outcomes, NOW) == []
        (joined,) = self.store(engine).expect({"g": 2}, NOW)
        assert joined.payloads == (b"0", b"1")
        assert joined.body is not None
        assert same(joined.body, body)
        assert [late.group for late in self.store(engine).unconfirmed(NOW + 1)] == ["g"]

    def test_an_outcome_that_brings_no_body_has_that_of_another_published(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a"), message("b")], NOW)
        first, last = self.take(engine)
        assert engine.atomic.commit("me", [done(first, parts=(_part(0, size=2),))], NOW) == []
        assert engine.atomic.commit("me", [done(last, parts=(Part("g", 1, b"1", 2),))], NOW) == []
        # At once, or by whoever looks for groups that nobody goes on with.
        late = self.store(engine).unconfirmed(NOW)
        assert ids(self.take(engine)) + [each.body.id for each in late if each.body] == ["body of g"]

    def test_what_a_stale_outcome_brings_serves_those_beside_it(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a"), message("b")], NOW)
        stale, valid = self.take(engine)
        stale.token += 1
        body = message("body")
        outcomes = [done(stale, parts=(Part("g", 0, b"", 1, body),)), done(valid, parts=(Part("g", 0, b"", 1, body),))]
        assert engine.atomic.commit("me", outcomes, NOW) == [stale.tag]
        assert ids(self.take(engine)) == ["body"]

    def test_a_stale_outcome_joins_nothing(self, engine: Engine) -> None:
        assert engine.atomic is not None
        self.broker(engine).publish([message("a")], NOW)
        (slow,) = self.take(engine, seconds=1.0)
        (heir,) = self.broker(engine).recover(Lease(("q",), "heir", 1, 30.0), NOW + 2)
        assert engine.atomic.commit("me", [done(slow, parts=(_part(0, b"stale", size=1),))], NOW + 2) == [slow.tag]
        assert self.store(engine).joined(["g"]) == {}
        assert engine.atomic.commit("heir", [done(heir, parts=(_part(0, b"valid", size=1),))], NOW + 2) == []
        assert self.store(engine).joined(["g"]) == {"g": (b"valid",)}

    def test_a_body_that_cannot_be_routed_becomes_a_dead_letter(self, engine: Engine) -> None:
        assert engine.atomic is not None
        assert engine.dead is not None
        self.broker(engine).publish([message("a")], NOW)
        (got,) = self.take(engine)
        part = Part("g", 0, b"", 1, message("lost", exchange="nowhere"))
        assert engine.atomic.commit("me", [done(got, publish=(message("next"),), parts=(part,))], NOW) == []
        assert [letter.message.id for letter in engine.dead.browse()] == ["lost"]
        assert ids(self.take(engine)) == ["next"]
