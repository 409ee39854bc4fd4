"""The worker's pure parts: tickets, frames, admission, rate limits, time limits."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.errors import ImproperlyConfigured
from umbel.core.message import Delivery, End, Settlement
from umbel.core.outcome import Policy
from umbel.worker import admission
from umbel.worker.admission import Admitted
from umbel.worker.crew import MAX_WAITING_BYTES
from umbel.worker.frames import FrameReader, pack, room_for_frames
from umbel.worker.limits import hard_limit_of, message_limits, soft_limit_of
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import MAX_SLOTS
from umbel.worker.rates import RateLimits, rate
from umbel.worker.tickets import Ticket, unpack


def delivery(**more: Any) -> Delivery:
    return Delivery(**{"id": "a", "task": "t", "queue": "celery", "head": b"{}", "body": b"[]", "token": 1, **more})


# --- tickets and frames --------------------------------------------------------------------------------------


@given(st.integers(1, 2**50), st.integers(0, MAX_SLOTS - 1), st.booleans())
def test_a_ticket_reads_back_as_it_was_and_is_never_zero(number: int, slot: int, early: bool) -> None:
    ticket = Ticket(number, slot, early)
    assert ticket.pack() > 0
    assert unpack(ticket.pack()) == ticket


def test_frames_larger_than_what_is_received_at_once_come_whole_among_small_ones() -> None:
    values = [[b"x" * size] for size in (3, 700_000, 5, 262_139, 262_140, 262_141, 3_000_000, 1, 0)]
    stream = b"".join(pack(value) for value in values)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=(stream,))
        sender.start()
        reader: FrameReader[Any] = FrameReader(Any)
        found: list[Any] = []
        while len(found) < len(values):
            found += reader.read(ours) or []
        sender.join()
    assert found == values


def test_what_a_socket_is_said_to_hold_it_holds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        room = room_for_frames(ours)
        assert room >= MAX_WAITING_BYTES * 0.9
        ours.setblocking(False)
        assert sum(ours.send(b"x" * 50_000) for _ in range(room // 50_000)) > room - 50_000


@given(st.lists(st.lists(st.integers() | st.binary(max_size=300), max_size=4), max_size=6), st.data())
def test_frames_do_not_depend_on_how_the_bytes_are_cut(values: list[Any], data: st.DataObject) -> None:
    values = [[x for x in value if not isinstance(x, int) or -(2**63) <= x < 2**64] for value in values]
    stream = b"".join(pack(value) for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader: FrameReader[Any] = FrameReader(Any)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == values


def test_a_reader_tells_nothing_yet_from_the_end_and_drains_what_is_left() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader: FrameReader[Any] = FrameReader(Any)
        assert reader.read(ours, socket.MSG_DONTWAIT) == []
        theirs.sendall(pack([1]) + pack([2]) + pack([3])[:3])
        assert reader.drain(ours) == [[1], [2]]
        theirs.sendall(pack([3])[3:])
        assert reader.read(ours) == [[3]]
        theirs.close()
        assert reader.read(ours) is None


# --- admission -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires", "revoked", "verdict"),
    [(0.0, set(), ""), (99.0, set(), "expired"), (101.0, set(), ""), (99.0, {"a"}, "revoked"), (0.0, {"b"}, "")],
)
def test_what_is_revoked_or_expired_is_not_run(expires: float, revoked: set[str], verdict: str) -> None:
    assert admission.verdict_of(delivery(expires=expires), 100.0, revoked)[0] == verdict


def test_an_unknown_task_is_offered_ever_more_slowly_until_patience_is_over() -> None:
    now, waits = 1000.0, []
    for offers in range(100):
        settlement = admission.offer(delivery(offers=offers), now, patience=60.0)
        if settlement is None:
            break
        assert settlement.end is End.OFFER
        waits.append(settlement.due - now)
        now = settlement.due
    assert waits == sorted(waits)
    assert waits[0] < 1.0
    assert 60.0 <= sum(waits) < 75.0


def test_without_patience_an_unknown_task_is_not_offered_at_all() -> None:
    assert admission.offer(delivery(), 0.0, patience=0.0) is None


EARLY, LATE = Ticket(7, 2, early=True).pack(), Ticket(7, 2, early=False).pack()


@pytest.mark.parametrize(
    ("ticket", "started", "policy", "fate"),
    [
        (0, True, Policy(), "run"),
        (EARLY, False, Policy(), "run"),
        (LATE, False, Policy(), "run"),
        (EARLY, True, Policy(), "lost"),
        (EARLY, True, None, "lost"),
        (LATE, True, Policy(acks_late=True), "again"),
    ],
)
def test_only_what_had_started_is_judged_when_its_worker_died(
    ticket: int, started: bool, policy: Policy | None, fate: str
) -> None:
    asked = []

    def was_started(owner: str, slot: int, number: int) -> bool:
        asked.append((owner, slot, number))
        return started

    found = admission.recovered(delivery(ticket=ticket, former_owner="dead", token=3), was_started, policy)
    assert asked == ([("dead", 2, 7)] if ticket else [])
    if fate == "again":
        assert isinstance(found, Settlement)
        assert found.end is End.CRASHED
        assert found.token == 3
    else:
        assert isinstance(found, Admitted)
        assert found.verdict == ("lost" if fate == "lost" else "")


def test_a_task_that_keeps_killing_its_process_is_given_up() -> None:
    policy = Policy(acks_late=True, max_crashes=3)
    fates = [
        admission.lost(delivery(crashes=crashes), policy, early=False, text="killed by SIGSEGV") for crashes in range(4)
    ]
    ends = ["again" if isinstance(fate, Settlement) else fate.verdict for fate in fates]
    assert ends[0] == "again"
    assert ends[-1] == "lost"
    assert ends == sorted(ends)


# --- rate limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "per_second"),
    [
        (None, 0),
        ("", 0),
        (0, 0),
        ("0", 0),
        (5, 5),
        (0.5, 0.5),
        ("10/s", 10),
        ("100/m", 100 / 60),
        (" 2 / h ", 2 / 3600),
    ],
)
def test_rates_are_read_as_runs_per_second(written: Any, per_second: float) -> None:
    assert rate(written) == pytest.approx(per_second)


@pytest.mark.parametrize("written", ["fast", "10/d", "-1/s", "1/2/s"])
def test_a_rate_that_cannot_be_read_says_how_to_write_one(written: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="10/s"):
        rate(written)


def limits(rate_limit: Any = None, default: Any = None, **more: Any) -> RateLimits:
    task = SimpleNamespace(rate_limit=rate_limit)
    app = SimpleNamespace(tasks={"t": task}, conf=SimpleNamespace(task_default_rate_limit=default))
    return RateLimits(app, **more)


def test_a_token_is_free_after_the_time_between_two_runs() -> None:
    bucket = limits("10/s")
    assert bucket.may_run(delivery(id="1"), 0.0)
    assert not bucket.may_run(delivery(id="2"), 0.05)
    assert bucket.may_run(delivery(id="2"), 0.1)


def test_what_is_held_back_gets_turns_in_order_and_keeps_its_own() -> None:
    bucket = limits("10/s")
    assert bucket.may_run(delivery(id="0"), 0.0)
    dues = [bucket.reserve(delivery(id=str(n)), 0.0) for n in range(1, 4)]
    assert dues == pytest.approx([0.1, 0.2, 0.3])
    assert bucket.reserve(delivery(id="2"), 0.05) == dues[1]
    assert bucket.due("3") == dues[2]
    assert not bucket.may_run(delivery(id="3"), 0.1)
    assert bucket.may_run(delivery(id="3"), 0.3)


def test_the_tasks_own_rate_goes_before_the_default_and_an_order_before_both() -> None:
    assert limits(None, "1/h").may_run(delivery(id="1"), 0.0) is not False
    bucket = limits("1/h", "100/s")
    assert bucket.may_run(delivery(id="1"), 0.0)
    assert not bucket.may_run(delivery(id="2"), 1.0)
    bucket.set("t", None)
    assert all(bucket.may_run(delivery(id=str(n)), 1.0) for n in range(3, 9))


def test_rate_limits_can_be_switched_off() -> None:
    bucket = limits("1/h", disabled=True)
    assert all(bucket.may_run(delivery(id=str(n)), 0.0) for n in range(5))


# --- time limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (b"[null,null]", (None, None)),
        (b"[10,5]", (10.0, 5.0)),
        (b"[null, 2.5]", (None, 2.5)),
        (b"[ 1.5 , null ]", (1.5, None)),
        (b"[1.2.3,null]", (None, None)),
    ],
)
def test_a_messages_limits_are_found_without_decoding_it(
    pair: bytes, expected: tuple[float | None, float | None]
) -> None:
    assert message_limits(b'{"headers":{"id":"a","timelimit":' + pair + b',"root_id":null}}') == expected


@pytest.mark.parametrize(
    ("message", "task", "worker", "expected"),
    [(b"3", 2.0, 1.0, 3.0), (b"null", 2.0, 1.0, 2.0), (b"null", None, 1.0, 1.0), (b"null", None, None, None)],
)
def test_a_limit_of_the_message_goes_before_the_tasks_and_that_before_the_workers(
    message: bytes, task: float | None, worker: float | None, expected: float | None
) -> None:
    app = SimpleNamespace(tasks={"t": SimpleNamespace(time_limit=task, soft_time_limit=task)})
    head = b'{"timelimit":[' + message + b"," + message + b"]}"
    options = WorkerOptions(hostname="w@h", concurrency=1, time_limit=worker, soft_time_limit=worker)
    assert hard_limit_of(app, "t", head, options) == expected
    assert soft_limit_of(app, "t", head, options) == expected
