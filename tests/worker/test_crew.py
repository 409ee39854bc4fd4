"""Who gets what: idle executors first, little behind short tasks, nothing behind a long one."""

from __future__ import annotations

import itertools
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umbel.core.message import Delivery
from umbel.worker.admission import Admitted
from umbel.worker.crew import HORIZON, MAX_WAITING, MAX_WAITING_BYTES, Assigned, Crew, Member
from umbel.worker.progress import Progress

SHORT = HORIZON / 10
LONG = HORIZON * 100


class Kit:
    """A crew of executors that are ready, and work for it."""

    def __init__(self, progress: Progress, sockets: list[socket.socket], size: int, **crew: Any) -> None:
        self.crew = Crew(**{"async_limit": 10, **crew})
        self._numbers = itertools.count(1)
        for index in range(size):
            ours, theirs = socket.socketpair()
            sockets += [ours, theirs]
            member = Member(index, os.getpid(), ours, progress.slot(index), ready=True)
            self.crew.join(member)

    def plan(self, costs: list[float], *, is_async: bool = False, body: bytes = b"[]") -> tuple[list[list[int]], int]:
        """Plan deliveries of these costs; return the numbers that each executor got, and how many are left."""
        backlog = deque(
            Admitted(Delivery(id=str(n), task=f"{cost}", queue="q", head=b"", body=body))
            for n, cost in enumerate(costs)
        )
        given: dict[int, list[int]] = {index: [] for index in self.crew.members}
        for member, batch in self.crew.plan(backlog, lambda item: self._assigned(item, is_async)):
            given[member.index] += [assigned.number for assigned in batch]
        return list(given.values()), len(backlog)

    def _assigned(self, item: Admitted, is_async: bool) -> Assigned:
        return Assigned(item.delivery, next(self._numbers), cost=float(item.delivery.task), is_async=is_async)


@pytest.fixture
def kit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Kit]]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    progress = Progress.create("crew", 8)
    sockets: list[socket.socket] = []
    yield lambda size, **crew: Kit(progress, sockets, size, **crew)
    for sock in sockets:
        sock.close()


def sizes(given: list[list[int]]) -> list[int]:
    return sorted(len(numbers) for numbers in given)


def test_idle_executors_come_first(kit: Callable[..., Kit]) -> None:
    given, left = kit(3).plan([LONG] * 3)
    assert sizes(given) == [1, 1, 1]
    assert left == 0


def test_nothing_is_put_behind_a_long_task(kit: Callable[..., Kit]) -> None:
    crew = kit(2)
    assert sizes(crew.plan([LONG, LONG, SHORT, SHORT])[0]) == [1, 1]
    assert crew.plan([SHORT] * 3) == ([[], []], 3)


def test_a_short_task_goes_to_the_executor_that_does_not_run_a_long_one(kit: Callable[..., Kit]) -> None:
    crew = kit(2)
    given, left = crew.plan([LONG, SHORT, SHORT, SHORT])
    assert sizes(given) == [1, 3]
    assert left == 0


def test_short_tasks_wait_up_to_the_horizon_and_no_longer(kit: Callable[..., Kit]) -> None:
    given, left = kit(1).plan([SHORT] * 100)
    waiting = len(given[0])
    assert waiting * SHORT <= HORIZON * 1.1
    assert waiting >= 9
    assert left == 100 - waiting


def test_however_short_they_are_no_more_than_so_many_wait(kit: Callable[..., Kit]) -> None:
    given, _left = kit(1).plan([1e-9] * (MAX_WAITING * 2))
    assert len(given[0]) == MAX_WAITING


def test_big_messages_do_not_pile_up_in_a_socket_that_nobody_reads(kit: Callable[..., Kit]) -> None:
    body = b"x" * (MAX_WAITING_BYTES // 3)
    given, _left = kit(1).plan([1e-6] * 50, body=body)
    assert 1 <= len(given[0]) <= 3


def test_one_message_larger_than_the_limit_is_still_run(kit: Callable[..., Kit]) -> None:
    assert kit(1).plan([1e-6] * 2, body=b"x" * (2 * MAX_WAITING_BYTES)) == ([[1]], 1)


def test_at_most_one_puts_nothing_behind_anything(kit: Callable[..., Kit]) -> None:
    crew = kit(2, most=1)
    assert sizes(crew.plan([1e-9] * 10)[0]) == [1, 1]
    assert sum(crew.crew.capacity()) == 0


def test_a_number_bounds_what_an_executor_holds(kit: Callable[..., Kit]) -> None:
    crew = kit(2, most=3)
    assert sizes(crew.plan([1e-9] * 10)[0]) == [3, 3]


def test_asynchronous_tasks_run_together_up_to_their_limit(kit: Callable[..., Kit]) -> None:
    crew = kit(2, async_limit=3)
    given, left = crew.plan([LONG] * 10, is_async=True)
    assert sizes(given) == [3, 3]
    assert left == 4


def test_asynchronous_tasks_do_not_keep_a_plain_one_out(kit: Callable[..., Kit]) -> None:
    crew = kit(1, async_limit=3, most=1)
    crew.plan([LONG] * 2, is_async=True)
    assert crew.plan([LONG])[1] == 0


@pytest.mark.parametrize("state", ["not ready", "leaving", "blocked"])
def test_an_executor_that_can_take_nothing_gets_nothing(kit: Callable[..., Kit], state: str) -> None:
    crew = kit(2)
    member = crew.crew.members[0]
    if state == "not ready":
        member.ready = False
    elif state == "leaving":
        member.leaving = True
    else:
        member.blocked_by = 99
    given, left = crew.plan([LONG] * 2)
    assert given[0] == []
    assert left == 1


def test_what_comes_back_makes_room_and_a_second_report_of_it_does_not(kit: Callable[..., Kit]) -> None:
    crew = kit(1)
    crew.plan([LONG])
    member = crew.crew.members[0]
    assert crew.crew.busy() == 1
    assert [a is not None for a in crew.crew.take_back(member, [1])] == [True]
    assert crew.crew.take_back(member, [1]) == [None]
    assert (crew.crew.busy(), member.load, member.waiting_bytes) == (0, 0.0, 0)
    assert crew.plan([LONG])[1] == 0


def test_the_end_of_the_task_that_blocked_an_executor_frees_it(kit: Callable[..., Kit]) -> None:
    crew = kit(1)
    crew.plan([LONG])
    member = crew.crew.members[0]
    member.blocked_by = 1
    assert crew.crew.is_blocked()
    crew.crew.take_back(member, [1])
    assert not crew.crew.is_blocked()


def test_a_leaving_executor_hands_over_what_it_had_in_order(kit: Callable[..., Kit]) -> None:
    crew = kit(1)
    crew.plan([SHORT] * 4)
    member = crew.crew.members[0]
    assert [a.number for a in crew.crew.leave(member)] == [1, 2, 3, 4]
    assert crew.crew.members == {}
    assert crew.crew.busy() == 0


def test_a_task_of_unknown_length_is_taken_to_be_long_and_then_learnt(kit: Callable[..., Kit]) -> None:
    runtimes = kit(1).crew.runtimes
    assert runtimes.expected("new") > HORIZON
    runtimes.learn("new", 0.001)
    first = runtimes.expected("new")
    assert first < HORIZON
    runtimes.learn("new", 5.0)
    assert runtimes.expected("new") >= 5.0
    for _ in range(100):
        runtimes.learn("new", 0.001)
    assert runtimes.expected("new") == pytest.approx(first, rel=0.1)


def test_before_anything_has_run_only_what_can_start_is_asked_for(kit: Callable[..., Kit]) -> None:
    crew = kit(3)
    assert crew.crew.capacity() == (3, 0)
    crew.crew.runtimes.learn("short", 1e-4)
    free, more = crew.crew.capacity()
    assert free == 3
    assert more > 3
