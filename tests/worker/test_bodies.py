"""Large bodies lie in memory that consumer and executors share: none is written over while it may be read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_kit import Crewed, wait
from umbel.worker.bodies import Bodies, Places

MODULE = """
import hashlib

@app.task
def digest(data, seconds=0.0):
    spin(seconds)
    return hashlib.sha256(data.encode()).hexdigest()


@app.task
async def adigest(data):
    await asyncio.sleep(0.01)
    return hashlib.sha256(data.encode()).hexdigest()


@app.task
def die(data):
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def crewed(tmp_path: Path) -> Iterator[Crewed]:
    made = Crewed(tmp_path)
    made.write(MODULE)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(20))
def test_places_that_are_lent_never_overlap_and_all_room_comes_back(seed: int) -> None:
    choice = random.Random(seed)
    places = Places(memoryview(bytearray(1000)))
    lent: dict[int, bytes] = {}
    for _ in range(2000):
        size = choice.choice([1, 10, 100, 333, 700])
        body = bytes([choice.randrange(256)]) * size
        found = places.find(size)
        start = places.lend(size)
        assert start == found
        if start >= 0:
            places.fill(start, body)
            lent[start] = body
        for place in list(lent) if choice.random() < 0.01 else choice.sample(list(lent), min(len(lent), 1)):
            body = lent.pop(place)
            assert bytes(places.part[place : place + len(body)]) == body
            places.take_back(place)
    for place in lent:
        places.take_back(place)
    assert places.lend(1000) == 0
    assert places.find(1) == -1


def test_executors_have_parts_of_their_own() -> None:
    bodies = Bodies(3)
    for index in range(3):
        bodies.part(index)[:] = bytes([index]) * len(bodies.part(index))
    assert [set(bodies.part(index)) for index in range(3)] == [{0}, {1}, {2}]
    assert len(Bodies(4096).part(0)) * 4096 <= 1 << 30


def test_bodies_of_all_sizes_arrive_whole(crewed: Crewed) -> None:
    crewed.worker("-c", "2")
    choice = random.Random(1)
    sizes = [choice.choice([10, 4000, 5000, 100_000, 300_000]) for _ in range(300)] + [6_000_000]
    data = [f"{n}".ljust(size, chr(97 + n % 26)) for n, size in enumerate(sizes)]
    results = [crewed.send(("digest", "adigest")[n % 7 == 0], text) for n, text in enumerate(data)]
    for text, result in zip(data, results, strict=True):
        assert result.get(timeout=20) == hashlib.sha256(text.encode()).hexdigest()


def test_bodies_that_waited_behind_a_long_task_or_a_dead_one_arrive_whole(crewed: Crewed) -> None:
    crewed.worker("-c", "2")
    data = [f"{n}".ljust(50_000, chr(97 + n % 26)) for n in range(120)]
    assert [crewed.send("digest", text).get(timeout=10) for text in data[:10]]
    results = []
    for n, text in enumerate(data):
        results.append(crewed.send("digest", text, 0.5 if n % 50 == 10 else 0.0))
        if n % 40 == 20:
            crewed.send("die", text)
    for text, result in zip(data, results, strict=True):
        assert result.get(timeout=30) == hashlib.sha256(text.encode()).hexdigest()
    wait(lambda: "exited prematurely" in crewed.workers[0].log(), what="the deaths to be told")
