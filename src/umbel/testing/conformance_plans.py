"""What every store does with groups that grow, with pieces of workflows and with saved groups of results, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import time

from umbel.core.message import GROWN, Joined, Part
from umbel.engine.seam import Engine
from umbel.testing.conformance_parts import NOW, Suite, eventually


def _parts(*indices: int) -> list[Part]:
    return [Part("g", index, b"%d" % index, member=f"task {index}") for index in indices]


class PlanSuite(Suite):
    """What every store that keeps groups does for workflows."""

    # --- members that come later ---------------------------------------------------------------------------

    def test_a_group_waits_for_members_that_came_later(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.expect({"g": 2}, NOW) == []
        assert store.grow("g", 2, NOW) == GROWN
        assert store.grow("g", 1, NOW) == GROWN + 2
        assert store.join(_parts(1, GROWN + 1, 0), NOW) == []
        assert store.join(_parts(GROWN + 2, GROWN + 3), NOW) == []
        assert store.joined(["g"]) == {}
        (joined,) = store.join(_parts(GROWN), NOW)
        assert joined.payloads == tuple(b"%d" % index for index in (0, 1, GROWN, GROWN + 1, GROWN + 2))
        assert store.joined(["g"]) == {"g": joined.payloads}

    def test_a_group_may_grow_before_its_size_is_known(self, engine: Engine) -> None:
        store = self.store(engine)
        first = store.grow("g", 1, NOW)
        assert store.join(_parts(first, 0), NOW) == []
        assert store.expect({"g": 2}, NOW) == []
        (joined,) = store.join(_parts(1), NOW)
        assert joined.payloads == (b"0", b"1", b"%d" % first)

    def test_growing_again_under_the_same_key_changes_nothing(self, engine: Engine) -> None:
        store = self.store(engine)
        store.expect({"g": 1}, NOW)
        assert store.grow("g", 1, NOW, "task 0, first") == GROWN
        assert store.grow("g", 1, NOW, "task 0, second") == GROWN + 1
        assert store.grow("g", 1, NOW, "task 0, first") == GROWN
        assert store.grow("other", 1, NOW, "task 0, second") == GROWN
        assert store.join(_parts(0, GROWN), NOW) == []
        assert len(store.join(_parts(GROWN + 1), NOW)) == 1
        assert store.grow("g", 1, NOW, "task 0, second") == GROWN + 1

    def test_a_complete_group_does_not_grow(self, engine: Engine) -> None:
        store = self.store(engine)
        store.expect({"g": 1}, NOW)
        complete = store.join(_parts(0), NOW)
        late = store.grow("g", 1, NOW)
        assert store.join(_parts(late), NOW) == []
        assert store.join(_parts(0), NOW) == complete
        store.confirm(["g"])
        store.forget_groups(["g"], self.soon_over(engine, 60))
        assert store.join(_parts(store.grow("g", 1, NOW), 0), NOW) == []

    def test_a_group_that_was_forgotten_for_good_begins_anew(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.grow("g", 3, NOW, "key") == GROWN
        store.forget_groups(["g"])
        assert store.grow("g", 1, NOW, "key") == GROWN
        store.join(_parts(0), NOW)
        assert store.expect({"g": 1}, NOW) == []
        assert len(store.join(_parts(GROWN), NOW)) == 1

    def test_members_are_told_apart_by_index_whoever_they_are(self, engine: Engine) -> None:
        store = self.store(engine)
        same = [Part("g", index, b"[1]", member="one task") for index in range(3)]
        assert store.join([*same, *same], NOW) == []
        assert store.expect({"g": 3}, NOW) == [Joined("g", (b"[1]", b"[1]", b"[1]"))]

    # --- pieces --------------------------------------------------------------------------------------------

    def test_pieces_are_read_as_often_as_they_are_asked_for(self, engine: Engine) -> None:
        store = self.store(engine)
        pieces = {"flow:0": b"[0]", "flow:1": bytes(range(256)), "'%ü ": b""}
        store.put_plans(pieces, NOW)
        store.put_plans({}, NOW)
        later = self.soon_over(engine, 60)
        assert store.take_plans([*pieces, "unknown"], NOW, later) == pieces
        assert store.take_plans(["flow:1"], NOW, later) == {"flow:1": pieces["flow:1"]}
        assert store.take_plans([], NOW, later) == {}

    def test_the_first_piece_under_a_key_stays(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put_plans({"a": b"first"}, NOW)
        store.put_plans({"a": b"second", "b": b"third"}, NOW)
        assert store.take_plans(["a", "b"], NOW, 0.0) == {"a": b"first", "b": b"third"}

    def test_a_piece_never_expires_before_it_is_taken_and_then_when_that_is_said(self, engine: Engine) -> None:
        store = self.store(engine)
        store.put_plans({"a": b"1", "b": b"2"}, NOW)
        assert store.expire(NOW + 10**9) == 0
        ends = self.soon_over(engine, 10)
        assert store.take_plans(["a", "b"], NOW, ends) == {"a": b"1", "b": b"2"}
        assert store.take_plans(["b"], NOW, 0.0) == {"b": b"2"}
        if engine.caps.expiry == "caller":
            assert store.take_plans(["a"], ends, 0.0) == {}
            assert store.expire(ends) == 1
        else:
            assert eventually(lambda: time.time() > ends + 0.1, 3)
            assert store.take_plans(["a"], NOW, 0.0) == {}
        assert store.take_plans(["a", "b"], NOW + 10**9, 0.0) == {"b": b"2"}
        store.put_plans({"a": b"anew"}, NOW + 10**9)
        assert store.take_plans(["a"], NOW + 10**9, 0.0) == {"a": b"anew"}

    def test_a_piece_that_is_kept_until_some_time_goes_then_or_when_it_is_let_go(self, engine: Engine) -> None:
        store = self.store(engine)
        ends = self.soon_over(engine, 10)
        now = NOW if engine.caps.expiry == "caller" else time.time()
        store.put_plans({"a": b"1", "b": b"2"}, now, ends)
        assert store.take_plans(["b"], now, now - 1) == {"b": b"2"}
        assert store.take_plans(["a", "b"], now, ends) == {"a": b"1"}
        store.put_plans({"b": b"3"}, now, ends)
        assert store.take_plans(["b"], now, ends) == {"b": b"3"}
        if engine.caps.expiry == "caller":
            assert store.take_plans(["a", "b"], ends, ends + 1) == {}
            assert store.expire(ends) == 2
        else:
            assert eventually(lambda: time.time() > ends + 0.1, 3)
            assert store.take_plans(["a", "b"], now, ends + 1) == {}

    # --- saved groups --------------------------------------------------------------------------------------

    def test_a_saved_group_is_read_replaced_and_deleted(self, engine: Engine) -> None:
        store = self.store(engine)
        assert store.saved_group("g", NOW) is None
        store.save_group("g", b"one", NOW, 0.0)
        store.save_group("g", b"two", NOW, 0.0)
        store.save_group("other", b"three", NOW, 0.0)
        assert store.saved_group("g", NOW + 10**9) == b"two"
        store.delete_group("g")
        store.delete_group("unknown")
        assert store.saved_group("g", NOW) is None
        assert store.saved_group("other", NOW) == b"three"

    def test_a_saved_group_is_no_part_of_the_group_that_joins(self, engine: Engine) -> None:
        store = self.store(engine)
        store.save_group("g", b"saved", NOW, 0.0)
        store.expect({"g": 1}, NOW)
        assert len(store.join(_parts(0), NOW)) == 1
        store.forget_groups(["g"])
        assert store.saved_group("g", NOW) == b"saved"
        store.join(_parts(0), NOW)
        store.delete_group("g")
        assert len(store.expect({"g": 1}, NOW)) == 1

    def test_a_saved_group_expires(self, engine: Engine) -> None:
        store = self.store(engine)
        ends = self.soon_over(engine, 10)
        store.save_group("g", b"one", NOW if engine.caps.expiry == "caller" else time.time(), ends)
        assert store.saved_group("g", NOW) == b"one"
        if engine.caps.expiry == "caller":
            assert store.saved_group("g", ends) is None
            assert store.expire(ends) == 1
        else:
            assert eventually(lambda: store.saved_group("g", NOW) is None, 3)

    @staticmethod
    def soon_over(engine: Engine, seconds: float) -> float:
        """A time in so many seconds, or, where the server's clock counts, in one."""
        return NOW + seconds if engine.caps.expiry == "caller" else time.time() + 1.0
