from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.shelf_kit import NOW, Site, begin, end, failing, heirs, take, until_it_works
from umbel.core.errors import OperationalError
from umbel.core.message import End, Message, Record, Settlement, Stage
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine, Lease
from umbel.engine.shelf import shelve
from umbel.testing import conformance


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def engine(site: Site) -> Engine:
    return site.engine()


class TestBroker(conformance.BrokerSuite): ...


class TestDeadOwner(conformance.DeadOwnerSuite): ...


def test_what_is_acknowledged_early_moves_to_the_shelf_when_it_starts(site: Site) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    assert (site.at_main(), site.on_shelf()) == (1, 0)
    assert begin(broker, [got]) == []
    assert (site.at_main(), site.on_shelf()) == (0, 1)
    assert broker.find(["a"], NOW) == {"a": Stage.STARTED}
    assert broker.depth(["q"], NOW)["q"].leased == 1
    assert end(broker, got) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)
    assert end(broker, got) == [got.tag]


def test_what_is_acknowledged_late_stays_until_it_has_been_held_long(site: Site) -> None:
    broker = site.process(hold=300.0)
    site.publish("a", "b")
    first, second = take(broker, seconds=1000.0)
    begin(broker, [first], early=False)
    assert broker.extend("me", 1000.0, NOW + 299) is True
    assert (site.at_main(), site.on_shelf()) == (2, 0)
    assert broker.extend("me", 1000.0, NOW + 300) is True
    assert (site.at_main(), site.on_shelf()) == (0, 2)
    assert broker.settle("me", [Settlement(d.tag, d.token) for d in (first, second)], NOW + 301) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)


def test_a_dead_worker_s_started_task_is_found_with_its_ticket_and_nothing_else_is_repeated(site: Site) -> None:
    dead, heir = site.process(), site.process()
    site.publish("a", "b")
    first, second = take(dead, "dead")
    begin(dead, [first], "dead")
    found = {got.id: got for got in heirs(heir)}
    assert (found["a"].ticket, found["a"].former_owner, found["a"].queue) == (9, "dead", "q")
    assert found["b"].ticket == 0
    assert heirs(heir) == []
    assert begin(heir, [*found.values()], "heir", NOW + 60) == []
    assert end(dead, first, "dead") == [first.tag]
    assert end(dead, second, "dead") == [second.tag]
    assert [end(heir, got, "heir", NOW + 60) for got in found.values()] == [[], []]
    assert (site.at_main(), site.on_shelf()) == (0, 0)


@pytest.mark.parametrize(
    ("how", "crashes", "offers", "due"),
    [(End.RELEASE, 2, 1, 0.0), (End.REQUEUE, 2, 1, 5.0), (End.CRASHED, 3, 1, 5.0), (End.OFFER, 2, 2, 5.0)],
)
def test_what_has_to_run_again_goes_back_to_the_main_broker(
    site: Site, how: End, crashes: int, offers: int, due: float
) -> None:
    broker = site.process()
    site.publish("a")
    for ends in (End.CRASHED, End.CRASHED, End.OFFER):
        (got,) = take(broker)
        end(broker, got, end=ends)
    (got,) = take(broker)
    begin(broker, [got])
    assert end(broker, got, end=how, due=NOW + 5) == []
    assert (site.at_main(), site.on_shelf()) == (1, 0)
    assert len(take(broker, now=NOW + 4)) == (0 if due else 1)
    (again,) = heirs(site.process(), now=NOW + 60) if not due else take(broker, now=NOW + 5)
    assert (again.id, again.crashes, again.offers, again.queue, again.body) == ("a", crashes, offers, "q", b"[]")


def test_a_message_that_went_back_starts_again_here_and_elsewhere(site: Site) -> None:
    here, there = site.process(), site.process()
    site.publish("a")
    for broker, owner in ((here, "here"), (here, "here"), (there, "there"), (here, "here")):
        (got,) = take(broker, owner)
        assert begin(broker, [got], owner) == []
        assert end(broker, got, owner, end=End.RELEASE) == []
    assert (site.at_main(), site.on_shelf()) == (1, 0)


def test_what_is_given_up_becomes_a_dead_letter_and_runs_again_when_it_is_revived(site: Site) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    begin(broker, [got])
    assert end(broker, got, end=End.DEAD, reason="no more") == []
    assert site.main.dead is not None
    (letter,) = site.main.dead.browse()
    assert (letter.message.id, letter.message.queue, letter.reason) == ("a", "q", "no more")
    assert (site.at_main(), site.on_shelf()) == (0, 0)
    assert site.main.dead.revive([letter.number], NOW) == 1
    (again,) = take(broker)
    assert begin(broker, [again]) == []
    assert end(broker, again) == []


def test_a_copy_of_what_is_running_elsewhere_is_dropped(site: Site) -> None:
    site.publish("a")
    first, second = site.process(), site.process()
    (got,) = take(first, "first")
    begin(first, [got], "first")
    # The acknowledgement was lost with the connection: the main broker delivers the message once more.
    site.publish("a")
    (copy,) = take(second, "second")
    assert begin(second, [copy], "second") == [copy.tag]
    assert (site.at_main(), site.on_shelf()) == (0, 1)
    site.publish("a")
    assert take(first, "first") == []
    assert (site.at_main(), site.on_shelf()) == (0, 1)
    assert end(first, got, "first") == []
    # Whoever sends the same id later on means it.
    site.publish("a")
    (later,) = take(first, "first")
    assert begin(first, [later], "first") == []


def test_a_retry_is_no_copy_of_the_attempt_that_made_it(site: Site) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    begin(broker, [got])
    broker.publish([Message("a", "project.task", "q", b"{}", b"[]", generation=1)], NOW)
    (retry,) = take(broker)
    assert begin(broker, [retry]) == []
    assert end(broker, got) == []
    assert end(broker, retry) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)


def test_a_worker_that_lost_its_lease_sends_nothing_round_again(site: Site) -> None:
    frozen, heir = site.process(), site.process()
    site.publish("a")
    (got,) = take(frozen, "frozen")
    begin(frozen, [got], "frozen")
    (taken,) = heirs(heir)
    assert frozen.extend("frozen", 10.0, NOW + 61) is False
    assert end(frozen, got, "frozen", NOW + 61, end=End.CRASHED) == [got.tag]
    assert (site.at_main(), site.on_shelf()) == (0, 1)
    assert end(heir, taken, "heir", NOW + 61) == []


def test_two_main_brokers_on_one_shelf_do_not_mix(site: Site) -> None:
    site.publish("a")
    broker = site.process()
    (got,) = take(broker, "dead")
    begin(broker, [got], "dead")
    other = Site.process(site)
    other._prefix = "umbel.shelf:other:"
    assert heirs(other) == []
    assert other.recover(Lease((), "heir", 9, 30.0), NOW + 60) == []
    assert len(site.process().recover(Lease((), "heir", 9, 30.0), NOW + 60)) == 1


# --- which shelf ------------------------------------------------------------------------------------------


def forgetful(url: str = "memory://") -> Engine:
    engine = open_engine(url)
    return replace(engine, url="amqp://host/vhost", caps=replace(engine.caps, remembers=False))


def test_an_engine_that_remembers_needs_no_shelf(site: Site) -> None:
    assert shelve(site.main, site.main) is site.main
    assert shelve(site.main, site.shelf).broker is site.main.broker


def test_reviving_forgets_a_result_that_is_in_another_engine(site: Site) -> None:
    engine = shelve(site.main, site.shelf)
    assert engine.dead is not None
    assert site.shelf.store is not None
    engine.dead.bury(Message("a", "project.task", "q", b"{}", b"[]"), "reason", NOW)
    site.shelf.store.put([Record("a", "FAILURE", b"{}")], NOW)
    (letter,) = engine.dead.browse()
    assert engine.dead.revive([letter.number], NOW) == 1
    assert site.shelf.store.get(["a"], NOW) == {}


def test_the_shelf_is_the_result_engine_where_that_remembers(site: Site) -> None:
    main = forgetful()
    engine = shelve(main, site.shelf)
    assert engine.caps.remembers
    assert engine.broker is not None
    assert main.broker is not None
    main.broker.publish([Message("a", "project.task", "q", b"{}", b"[]")], NOW)
    (got,) = take(engine.broker)
    begin(engine.broker, [got])
    assert site.shelf_broker.depth(["umbel.shelf:vhost:q"], NOW)["umbel.shelf:vhost:q"].leased == 1
    engine.close()
    assert site.shelf_broker.find(["a"], NOW) == {"a": Stage.STARTED}


def test_without_one_the_shelf_is_a_file_of_this_host_made_when_a_worker_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    main = forgetful()
    engine = shelve(main, forgetful())
    assert engine.broker is not None
    engine.broker.publish([Message("a", "project.task", "q", b"{}", b"[]")], NOW)
    engine.broker.depth(["q"], NOW)
    assert list(tmp_path.iterdir()) == []
    (got,) = take(engine.broker, "dead")
    begin(engine.broker, [got], "dead")
    engine.close()
    assert len(list((tmp_path / "umbel").glob("shelf-*.db"))) == 1
    again = shelve(forgetful())
    assert again.broker is not None
    (found,) = heirs(again.broker)
    assert (found.id, found.former_owner) == ("a", "dead")
    assert end(again.broker, found, "heir", NOW + 60) == []
    again.close()


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["start.before", "start.after", "adopt.before", "adopt.after", "settle.before"])
def test_a_start_that_failed_is_repeated_without_harm(site: Site, point: str) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    with failing(point):
        assert until_it_works(lambda: begin(broker, [got])) == []
    assert broker.extend("me", 10.0, NOW) is True
    assert (site.at_main(), site.on_shelf()) == (0, 1)
    assert end(broker, got) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)


def test_after_a_start_that_failed_another_batch_may_come_first(site: Site) -> None:
    broker = site.process()
    site.publish("a", "b", "c")
    first, second, third = take(broker)
    with failing("adopt.after"), pytest.raises(OperationalError):
        begin(broker, [first, second])
    assert begin(broker, [third]) == []
    assert site.on_shelf() == 3
    assert begin(broker, [first]) == []
    assert broker.find(["a"], NOW) == {"a": Stage.STARTED}
    assert [end(broker, got) for got in (third, second, first)] == [[], [], []]
    assert (site.at_main(), site.on_shelf()) == (0, 0)
