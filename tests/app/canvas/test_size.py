"""Large workflows: what they take in messages and memory grows with their length, width and depth, and no faster."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.session_kit import Session, make_app
from umbel import Umbel, chain, chord, group
from umbel.engine.seam import Lease

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Umbel]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"
    with Umbel("large", broker=url, set_as_current=False) as made:

        @made.task(name="large.add")
        def add(x: int, y: int = 1) -> int:
            return x + y

        @made.task(name="large.total")
        def total(values: list[int]) -> int:
            return sum(values)

        yield made


def taken(app: Umbel, limit: int) -> list[int]:
    """Take the next messages; return how long each is."""
    leased = app.broker.lease(Lease(("celery",), "a worker", limit, 60.0), time.time())
    return [len(each.head) + len(each.body) for each in leased]


def growth(send: Any, small: int, large: int) -> tuple[int, int]:
    """Return the most memory that sending takes at two sizes (bytes)."""
    found = []
    for size in (small, large):
        tracemalloc.start()
        send(size)
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return found[0], found[1]


def test_a_group_of_a_hundred_thousand_is_stored_in_messages_as_small_as_single_ones(app: Umbel) -> None:
    add = app.tasks["large.add"]
    add.delay(1, 2)
    alone = taken(app, 1)[0]
    result = group((add.s(number, 2) for number in range(100_000)), app=app).apply_async()
    assert len(result) == 100_000
    assert app.broker.depth(["celery"], time.time())["celery"].ready == 100_000
    assert max(taken(app, 1000)) < alone + 120


def test_a_header_of_thousands_has_messages_that_do_not_grow_with_its_width_or_its_body(app: Umbel) -> None:
    add, total = app.tasks["large.add"], app.tasks["large.total"]
    body = chain(total.s(), *(add.s(number) for number in range(200)), app=app)
    sizes = {}
    for width in (10, 5000):
        chord((add.s(number, 2) for number in range(width)), body, app=app).apply_async()
        sizes[width] = taken(app, width)
        assert len(sizes[width]) == width
    assert max(sizes[5000]) < max(sizes[10]) + 50 < 2000


def test_a_chain_of_ten_thousand_starts_with_a_message_as_small_as_that_of_a_short_one(app: Umbel) -> None:
    add = app.tasks["large.add"]
    began = time.monotonic()
    chain(*(add.s(1) for _ in range(10_000)), app=app).apply_async((0,))
    assert time.monotonic() - began < 30
    assert taken(app, 1)[0] < 3000


def test_the_pieces_of_a_chain_grow_with_its_length_only(app: Umbel, monkeypatch: pytest.MonkeyPatch) -> None:
    add, written = app.tasks["large.add"], []
    store = app.store
    assert store is not None
    put = store.put_plans

    def counted(pieces: Any, *more: Any) -> None:
        written.append(sum(map(len, pieces.values())))
        put(pieces, *more)

    monkeypatch.setattr(store, "put_plans", counted)
    sums = []
    for length in (500, 5000):
        written.clear()
        chain(*(add.s(1) for _ in range(length)), app=app).apply_async((0,))
        sums.append(sum(written))
    assert sums[1] < 11 * sums[0]
    assert sums[1] < 5000 * 800


def test_fifty_levels_of_chords_have_small_first_messages(app: Umbel) -> None:
    add, total = app.tasks["large.add"], app.tasks["large.total"]
    nested: Any = add.s(1, 1)
    for _ in range(50):
        nested = chord([nested, add.s(1, 1)], total.s(), app=app)
    nested.apply_async()
    sizes = taken(app, 1000)
    assert len(sizes) == 51
    assert max(sizes) < 6000


def test_the_memory_of_sending_grows_with_the_number_of_members_only(tmp_path: Path) -> None:
    with Umbel("large", broker=f"sqlite:///{tmp_path}/tasks.db", set_as_current=False) as app:

        @app.task(name="large.add")
        def add(x: int, y: int = 1) -> int:
            return x + y

        def send_group(size: int) -> None:
            group((add.s(number, 2) for number in range(size)), app=app).apply_async()

        def send_chain(size: int) -> None:
            chain(*(add.s(1) for _ in range(size)), app=app).apply_async((0,))

        send_group(10)
        for send in (send_group, send_chain):
            small, large = growth(send, 300, 3000)
            assert large < 13 * small, send.__name__


def test_a_chain_of_ten_thousand_goes_on_step_by_step_and_carries_a_few_steps_at_a_time() -> None:
    app, carried = make_app(), []

    @app.task(bind=True, name="large.step")
    def step(self: Any, number: int) -> int:
        carried.append(len(self.request.chain or ()))
        return number + 1

    chain(*(step.s() for _ in range(10_000)), app=app).apply_async((0,))
    deadline = time.monotonic() + 30
    with Session(app):
        while len(carried) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert max(carried) < 10
