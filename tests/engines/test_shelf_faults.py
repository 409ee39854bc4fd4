"""Every step of starting and ending with a shelf fails, before or after it took effect, or ends the process there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.shelf_kit import NOW, Site, begin, end, failing, heirs, take, until_it_works
from umbel.core.errors import OperationalError
from umbel.core.message import End, Joined, Message, Part, Record, Settlement
from umbel.engine import settle
from umbel.engine.registry import open_engine

STARTING = ["start.before", "start.after", "adopt.before", "adopt.after", "settle.before", "settle.after"]
#: (failpoint, pass): asking whether the lease is held, publishing, ending on the shelf.
RETURNING = [
    (f"{name}.{when}", 1) for name in ("start", "publish", "settle") for when in ("before", "after")
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def run_whatever_comes(site: Site, runs: list[str]) -> None:
    """Be the next worker: take over, run what is ready, until nothing is left."""
    heir, now = site.process(), NOW + 60
    for turn in range(4):
        found = heirs(heir, now=now + turn * 60)
        for got in found + take(heir, "heir", now + turn * 60):
            if begin(heir, [got], "heir", now + turn * 60):
                continue
            # A ticket of an early-acknowledged task that had started: it is ended, not run.
            if not got.ticket:
                runs.append(got.id)
            assert end(heir, got, "heir", now + turn * 60) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)


@pytest.mark.parametrize("point", STARTING)
def test_a_worker_that_dies_while_it_starts_a_task_leaves_it_to_one_heir(site: Site, point: str) -> None:
    victim = site.process()
    site.publish("a", "b")
    deliveries = take(victim, "victim")
    with failing(point):
        try:
            begin(victim, deliveries, "victim")
        except OperationalError:
            assert not point.startswith("settle")
    runs: list[str] = []
    run_whatever_comes(site, runs)
    assert sorted(runs) in (["a", "b"], [])


@pytest.mark.parametrize("point", STARTING[:4])
@pytest.mark.parametrize("how", [End.DONE, End.RELEASE])
def test_what_could_not_be_started_can_be_settled_all_the_same(site: Site, point: str, how: End) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    with failing(point), pytest.raises(OperationalError):
        begin(broker, [got])
    assert end(broker, got, end=how) == []
    assert (site.at_main(), site.on_shelf()) == (0 if how is End.DONE else 1, 0)
    if how is End.RELEASE:
        (again,) = take(broker)
        assert begin(broker, [again]) == []


@pytest.mark.parametrize(("point", "nth"), RETURNING)
def test_a_message_that_goes_back_is_neither_lost_nor_doubled_by_a_failure(site: Site, point: str, nth: int) -> None:
    broker = site.process()
    site.publish("a")
    (got,) = take(broker)
    begin(broker, [got])
    with failing(point, nth):
        assert until_it_works(lambda: end(broker, got, end=End.RELEASE)) in ([], [got.tag])
    runs: list[str] = []
    run_whatever_comes(site, runs)
    assert runs == ["a"]


@pytest.mark.parametrize(("point", "nth"), RETURNING)
def test_a_worker_that_dies_while_it_gives_a_message_back_loses_and_doubles_nothing(
    site: Site, point: str, nth: int
) -> None:
    victim = site.process()
    site.publish("a")
    (got,) = take(victim, "victim")
    begin(victim, [got], "victim")
    with failing(point, nth), pytest.raises(OperationalError):
        end(victim, got, "victim", end=End.RELEASE)
    heir = site.process()
    seen = [*take(heir, "heir"), *heirs(heir)]
    started = [one for one in seen if not begin(heir, [one], "heir", NOW + 60)]
    assert len(started) == 1
    assert end(heir, started[0], "heir", NOW + 60) == []
    assert (site.at_main(), site.on_shelf()) == (0, 0)


@pytest.mark.parametrize(("point", "nth"), RETURNING)
def test_a_message_given_back_may_be_taken_by_another_worker_before_the_shelf_lets_go(
    site: Site, point: str, nth: int
) -> None:
    broker, other = site.process(), site.process()
    site.publish("a")
    (got,) = take(broker)
    begin(broker, [got])
    with failing(point, nth), pytest.raises(OperationalError):
        end(broker, got, end=End.RELEASE)
    early = take(other, "other")
    assert [begin(other, [one], "other") for one in early] in ([], [[]])
    stale = end(broker, got, end=End.RELEASE)
    runs = [one.id for one in early]
    for one in early:
        assert end(other, one, "other") == []
    run_whatever_comes(site, runs)
    assert runs == ["a"]
    assert stale in ([], [got.tag])


SAFE_ORDER = [
    f"{name}.{when}" for name in ("put", "join", "publish", "confirm", "settle") for when in ("before", "after")
]  # fmt: skip


@pytest.mark.parametrize("point", SAFE_ORDER)
def test_an_outcome_is_complete_whichever_step_of_it_failed_first(site: Site, tmp_path: Path, point: str) -> None:
    engine, results = site.engine(), open_engine(f"sqlite:///{tmp_path}/results.db")
    assert engine.broker is not None
    assert results.store is not None
    site.publish("a")
    (got,) = take(engine.broker)
    begin(engine.broker, [got])
    body = Message("body", "project.task", "q", b"{}", b"[]")
    outcome = Settlement(
        got.tag,
        got.token,
        record=Record("a", "SUCCESS", b"{}"),
        publish=(Message("next", "project.task", "q", b"{}", b"[]"),),
        parts=(Part("group", 0, b"payload", 1, body),),
    )
    with failing(point):
        stale = until_it_works(lambda: settle.commit(engine, results, "me", [outcome], NOW))
    assert stale in ([], [got.tag])
    assert results.store.get(["a"], NOW)["a"].state == "SUCCESS"
    assert sorted(d.id for d in take(engine.broker)) == ["body", "next"]
    assert results.store.join([Part("group", 0, b"payload", 1)], NOW) == []
    assert (site.on_shelf(), site.at_main()) == (0, 2)
    results.close()


@pytest.mark.parametrize("point", ["expect.before", "expect.after"])
def test_a_group_whose_size_came_last_is_told_again_after_a_failure(tmp_path: Path, point: str) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/results.db")
    store = engine.store
    assert store is not None
    store.join([Part("group", 0, b"x")], NOW)
    with failing(point):
        assert until_it_works(lambda: store.expect({"group": 1}, NOW)) == [Joined("group", (b"x",))]
    store.confirm(["group"])
    engine.close()
