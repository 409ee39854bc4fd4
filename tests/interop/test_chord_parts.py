"""The parts of a chord in Redis: members that ended on Celery's workers and on umbel's complete it together, once."""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.kit import HERE, CeleryProducer, wait_for
from tests.servers import RedisServer
from umbel.core.message import GROWN, Message, Part
from umbel.engine.registry import open_engine
from umbel.engine.seam import Engine
from umbel.engines.redis.connection import Client
from umbel.engines.redis.location import locate


class Both:
    """A store and Celery's backend on one Redis; `ends` lets a member end on one of the sides."""

    def __init__(self, url: str, folder: Path) -> None:
        log = folder / "celery.log"
        environment = {
            **os.environ,
            "INTEROP_BROKER": url,
            "INTEROP_RESULTS": url,
            "INTEROP_SIDE": "celery",
            "INTEROP_JOURNAL": str(folder / "journal"),
            "PYTHONPATH": str(HERE),
        }
        self.celery = CeleryProducer(environment, log)
        self.engine: Engine = open_engine(url)
        self.raw = Client(locate(url, {}))
        assert self.engine.store is not None
        self.store = self.engine.store
        #: Group → payloads that umbel was told of.
        self.told: dict[str, list[tuple[bytes, ...]]] = {}
        self._lock = threading.Lock()

    def ends(self, side: str, group: str, index: int, value: Any = None, task_id: str = "") -> None:
        """Let a member end on a side; umbel's confirms what it is told."""
        task_id = task_id or f"{group}-{index}"
        if side == "celery":
            self.celery.ask(f"chord_part({group!r}, {index}, {task_id!r}, {value!r})")
            return
        payload = json.dumps([1, task_id, "SUCCESS", value]).encode()
        body = Message(f"body-{group}", "umbel.join", "flow", b"{}", b"[]")
        for joined in self.store.join([Part(group, index, payload, None, body, task_id)], time.time()):
            with self._lock:
                self.told.setdefault(joined.group, []).append(joined.payloads)
            self.store.confirm([joined.group])

    def bodies(self) -> dict[str, list[Any]]:
        """What Celery has sent so far: group → the lists of values that its bodies were given."""
        found: dict[str, list[Any]] = {}
        for raw in self.raw.call("LRANGE", "bodies", 0, -1):
            args, kwargs, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
            found.setdefault(kwargs["group"], []).append(args[0])
        return found

    def completions(self, group: str) -> list[list[Any]]:
        """The values that the group was completed with, by whichever side, as often as it was."""
        ours = [[json.loads(payload)[3] for payload in payloads] for payloads in self.told.get(group, [])]
        return ours + self.bodies().get(group, [])

    def keys(self, group: str) -> set[str]:
        """The ends of the keys that are kept of a group."""
        start = f"celery-taskset-meta-{group}"
        return {key.decode().removeprefix(start) for key in self.raw.call("KEYS", f"*{group}*")}

    def close(self) -> None:
        """End everything."""
        self.celery.close()
        self.engine.close()
        self.raw.close()


@pytest.fixture(scope="module")
def both(celery_installed: None, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    made = Both(redis_server.fresh_url(), tmp_path_factory.mktemp("chords"))
    yield made
    made.close()


def test_whoever_runs_which_member_the_chord_is_completed_once_and_in_order(both: Both) -> None:
    sides = itertools.product(("celery", "umbel"), repeat=3)
    for (number, workers), size_at in itertools.product(enumerate(sides), (0, 2)):
        group = f"mixed-{number}-{size_at}"
        order = [(1, workers[0]), (0, workers[1]), (2, workers[2])]
        for step, (index, side) in enumerate(order):
            if step == size_at:
                both.celery.ask(f"chord_size({group!r}, 3)")
            both.ends(side, group, index, f"value {index}")
        assert both.completions(group) == [["value 0", "value 1", "value 2"]], (group, workers)


@pytest.mark.parametrize("last", ["celery", "umbel"])
@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "forgotten"])
def test_repeats_on_either_side_neither_count_nor_complete_again(both: Both, last: str, forgotten: bool) -> None:
    group = f"repeats-{last}-{forgotten}"
    both.celery.ask(f"chord_size({group!r}, 3)")
    for side in ("celery", "umbel", "celery"):
        both.ends(side, group, 0, f"{side} 0")
        both.ends(side, group, 1, f"{side} 1")
    assert both.completions(group) == []
    both.ends(last, group, 2, "last")
    if forgotten:
        both.store.forget_groups([group], time.time() + 60)
    for side in ("umbel", "celery"):
        for index in range(3):
            both.ends(side, group, index, "late")
    assert both.completions(group) == [["celery 0", "celery 1", "last"]]


def test_what_umbel_joins_does_not_expire_although_celery_said_so(both: Both) -> None:
    both.celery.ask("chord_size('lasting', 4)")
    both.ends("celery", "lasting", 0, 0)
    names = [f"celery-taskset-meta-lasting.{end}" for end in "jds"]
    assert all(both.raw.call("TTL", name) > 0 for name in names)
    both.ends("umbel", "lasting", 1, 1)
    assert [both.raw.call("TTL", name) for name in names] == [-1, -1, -1]


def test_nothing_is_left_of_a_group_that_was_forgotten_but_that_it_is_done(both: Both) -> None:
    both.celery.ask("chord_size('over', 2)")
    both.ends("celery", "over", 0)
    both.ends("umbel", "over", 1)
    both.store.forget_groups(["over"], time.time() + 60)
    assert both.keys("over") == {".c"}
    assert both.raw.call("GET", "celery-taskset-meta-over.c") == b"done"
    assert 55 <= both.raw.call("TTL", "celery-taskset-meta-over.c") <= 61


@pytest.mark.parametrize("last", ["celery", "umbel"])
def test_one_task_at_two_places_of_a_header_counts_at_both(both: Both, last: str) -> None:
    group = f"reused-{last}"
    both.celery.ask(f"chord_size({group!r}, 3)")
    both.ends("umbel", group, 0, 7, "one task")
    both.ends("umbel", group, 1, 7, "one task")
    both.ends(last, group, 2, 8)
    assert both.completions(group) == [[7, 7, 8]]


@pytest.mark.parametrize("last", ["celery", "umbel"])
def test_members_that_either_side_adds_later_are_waited_for(both: Both, last: str) -> None:
    group = f"grown-{last}"
    both.celery.ask(f"app.backend.add_to_chord({group!r}, None)")
    first = both.store.grow(group, 1, time.time())
    assert first >= GROWN
    both.celery.ask(f"chord_size({group!r}, 2)")
    both.ends("umbel", group, 0, 0)
    both.ends("celery", group, 1, 1)
    both.ends("umbel", group, first, "ours")
    assert both.completions(group) == []
    # Celery gives a member that is added the index of the one that adds it.
    both.ends(last, group, 1, "theirs", "another")
    (values,) = both.completions(group)
    assert (values[0], sorted(values[1:3], key=str), values[3]) == (0, [1, "theirs"], "ours")


def test_a_claim_of_a_celery_worker_that_died_is_over_with_its_time(both: Both) -> None:
    both.celery.ask("chord_size('claimed', 2)")
    both.ends("umbel", "claimed", 0, "a")
    # What is left of a worker that was killed between its claim and the body.
    both.raw.call("SET", "celery-taskset-meta-claimed.c", "token of the dead", "PX", 300)
    both.ends("umbel", "claimed", 1, "b")
    assert both.completions("claimed") == []
    wait_for(lambda: not both.raw.call("EXISTS", "celery-taskset-meta-claimed.c"), "the claim to end")
    both.ends("umbel", "claimed", 1, "b")
    both.ends("umbel", "claimed", 1, "b")
    assert both.completions("claimed") == [["a", "b"]]


def test_a_list_that_celery_keeps_without_order_is_gone_on_with(both: Both) -> None:
    both.celery.ask("chord_size('list', 3)")
    both.celery.ask("chord_part('list', 2, 'x', 'c', ordered=False)")
    both.ends("umbel", "list", 0, "a")
    both.ends("umbel", "list", 1, "b")
    assert [sorted(values) for values in both.completions("list")] == [["a", "b", "c"]]


def test_both_sides_at_once_complete_every_chord_once(both: Both) -> None:
    groups = [f"race-{number}" for number in range(60)]
    for group in groups:
        both.celery.ask(f"chord_size({group!r}, 4)")
    theirs = [(group, index, f"{group}-{index}", index) for group in groups for index in (0, 2)]
    asked = threading.Thread(target=both.celery.ask, args=(f"chord_parts({theirs!r})", 60))

    def run(index: int) -> None:
        for group in groups:
            both.ends("umbel", group, index, index)

    ours = [threading.Thread(target=run, args=(index,)) for index in (1, 3)]
    for thread in (asked, *ours):
        thread.start()
    for thread in (asked, *ours):
        thread.join(60)
    sent = both.bodies()
    assert Counter(len(sent.get(group, [])) + len(both.told.get(group, [])) for group in groups) == {1: 60}
    assert all(values == [0, 1, 2, 3] for group in groups for values in both.completions(group))
