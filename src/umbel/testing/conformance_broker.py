"""What every broker does, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import threading
import time

from umbel.core.errors import Unroutable
from umbel.core.message import Depth, End, Settlement, Stage
from umbel.core.queues import Exchange, Queue
from umbel.engine.seam import Engine, Lease
from umbel.testing.conformance_parts import DEADLINE, NOW, Suite, done, ids, message


class BrokerSuite(Suite):
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
        assert ids(self.take(engine, wait=DEADLINE)) == ["a"]
        assert time.monotonic() - began < DEADLINE / 2
        publisher.join()

    def test_waiting_ends_when_a_message_is_due(self, engine: Engine) -> None:
        now = time.time()
        self.broker(engine).publish([message("a", due=now + 0.1)], now)
        assert ids(self.take(engine, now=now, wait=DEADLINE)) == ["a"]
        assert 0.05 < time.time() - now < DEADLINE / 2

    def test_waiting_for_nothing_ends_in_time(self, engine: Engine) -> None:
        began = time.monotonic()
        assert self.take(engine, wait=0.05) == []
        assert 0.04 < time.monotonic() - began < DEADLINE / 2

    def test_wake_ends_every_wait(self, engine: Engine) -> None:
        ended: list[str] = []

        def wait(owner: str) -> None:
            self.take(engine, owner, wait=DEADLINE)
            ended.append(owner)

        self.take(engine, "one"), self.take(engine, "two")
        threads = [threading.Thread(target=wait, args=(owner,)) for owner in ("one", "two")]
        for thread in threads:
            thread.start()
        self.broker(engine).wake()
        for thread in threads:
            thread.join(DEADLINE / 2)
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
            thread.join(DEADLINE)
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

    def test_tasks_that_are_left_to_others_stay_where_they_are(self, engine: Engine) -> None:
        broker = self.broker(engine)
        batch = [message("a"), message("b"), message("c")]
        batch[0].task = batch[2].task = "theirs"
        broker.publish(batch, NOW)
        mine = Lease(("q",), "me", 10, 30.0, ("theirs",))
        assert [got.id for got in broker.lease(mine, NOW)] == ["b"]
        assert broker.lease(mine, NOW) == []
        assert [got.id for got in self.take(engine, "other")] == ["a", "c"]

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

    def test_a_ticket_keeps_the_name_of_its_writer_however_often_it_is_taken_over(self, engine: Engine) -> None:
        broker = self.broker(engine)
        broker.publish([message("a")], NOW)
        (first,) = self.take(engine, "writer", seconds=10.0)
        broker.start("writer", [(first.tag, first.token, 7)], NOW)
        broker.recover(Lease(("q",), "heir", 100, 10.0), NOW + 10)
        (again,) = broker.recover(Lease(("q",), "second", 100, 10.0), NOW + 20)
        assert (again.ticket, again.former_owner) == (7, "writer")
        broker.start("second", [(again.tag, again.token, 8)], NOW + 20)
        (last,) = broker.recover(Lease(("q",), "third", 100, 10.0), NOW + 30)
        assert (last.ticket, last.former_owner) == (8, "second")

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
