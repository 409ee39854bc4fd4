"""The checker of the process tests sees every kind of bad history: each is made by hand from a good one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process.checker import Final, Rules, check
from tests.process.journal import Event

LATE, EARLY = Rules(late=True), Rules(late=False)


def event(what: str, id: str = "a", t: float = 0.0, pid: int = 1, **more: Any) -> Event:
    return Event(what, id, t, pid, more)


def published(*ids: str) -> list[Event]:
    return [event(what, id) for id in ids for what in ("intended", "returned")]


def ran(id: str = "a", t: float = 1.0, pid: int = 10, *, again: bool = False) -> list[Event]:
    return [
        event("start", id, t, pid, redelivered=again),
        event("end", id, t + 0.1, pid, value=f"{id}-{pid}"),
    ]


def killed(pid: int, t: float, *, session: bool = False) -> Event:
    return event("kill", "", t, 1, pids=[pid], session=session)


DRAINED = event("drained", "", 20.0)
GOOD = {"a": Final("SUCCESS", "a-10")}


def violations(events: list[Event], finals: dict[str, Final], rules: Rules = LATE, **more: Any) -> list[str]:
    return check([*events, DRAINED], finals, rules, **more).violations


def test_a_plain_history_is_good() -> None:
    assert violations(published("a") + ran(), GOOD, EARLY) == []


def test_a_late_task_may_run_again_after_a_kill() -> None:
    events = [*published("a"), event("start", "a", 1.0, 9), killed(9, 1.05), *ran(again=True)]
    verdict = check([*events, DRAINED], GOOD, LATE)
    assert verdict.violations == []
    assert (verdict.duplicated, verdict.killed_runs, verdict.lost) == (1, 1, 0)


def test_an_accepted_task_without_a_trace_is_lost() -> None:
    verdict = check([*published("a"), DRAINED], {}, LATE)
    assert verdict.lost == 1
    assert "I1 lost" in verdict.violations[0]


@pytest.mark.parametrize("state", ["PENDING", "STARTED", "RETRY", ""])
def test_a_task_that_never_reaches_a_terminal_state_is_lost(state: str) -> None:
    assert "I1 lost" in violations([*published("a"), *ran()], {"a": Final(state)})[0]


def test_a_success_that_nobody_ran_to_its_end_is_seen() -> None:
    events = [*published("a"), event("start", "a", 1.0, 10)]
    assert "no run of it came to its end" in violations(events, GOOD)[0]


def test_a_dead_letter_is_not_lost() -> None:
    assert violations(published("a"), {"a": Final(dead="cannot be read")}) == []


def test_a_run_that_nobody_intended_is_unexpected() -> None:
    assert "I2 unexpected" in violations(ran(), GOOD)[0]


def test_a_call_in_doubt_that_runs_is_recovered() -> None:
    assert check([event("intended"), event("error"), *ran(), DRAINED], GOOD, LATE).recovered == 1


def test_a_repeat_without_a_kill_is_seen() -> None:
    events = published("a") + ran(pid=9) + ran(t=2.0, again=True)
    assert "no kill hit its run" in violations(events, GOOD)[0]


def test_the_kill_of_another_process_explains_nothing() -> None:
    events = [*published("a"), *ran(pid=9), killed(8, 1.05), *ran(t=2.0, again=True)]
    assert "no kill hit its run" in violations(events, GOOD)[0]


def test_of_a_killed_executor_only_the_last_run_may_repeat() -> None:
    events = [*published("a", "b"), *ran("b", 1.0, 9), *ran("a", 1.2, 9), killed(9, 1.31)]
    repeated_a = [*events, *ran("a", 2.0, 10, again=True)]
    assert violations(repeated_a, {"a": Final("SUCCESS", "a-10"), "b": Final("SUCCESS", "b-9")}) == []
    repeated_b = [*events, *ran("b", 2.0, 10, again=True)]
    found = violations(repeated_b, {"a": Final("SUCCESS", "a-9"), "b": Final("SUCCESS", "b-10")})
    assert "no kill hit its run" in found[0]


def test_of_a_killed_session_what_ended_just_before_may_repeat_and_nothing_older() -> None:
    events = [*published("a", "b"), *ran("b", 1.0, 9), *ran("a", 5.0, 9), killed(9, 5.2, session=True)]
    both = {"a": Final("SUCCESS", "a-10"), "b": Final("SUCCESS", "b-9")}
    assert violations([*events, *ran("a", 7.0, 10, again=True)], both) == []
    older = {"a": Final("SUCCESS", "a-9"), "b": Final("SUCCESS", "b-10")}
    assert "I3 b" in violations([*events, *ran("b", 7.0, 10, again=True)], older)[0]


def test_an_early_task_never_runs_twice() -> None:
    events = [*published("a"), event("start", "a", 1.0, 9), killed(9, 1.05), *ran(again=True)]
    assert any("acknowledged early and ran 2 times" in line for line in violations(events, GOOD, EARLY))


def test_a_killed_early_task_has_failed_as_lost() -> None:
    events = [*published("a"), event("start", "a", 1.0, 9), killed(9, 1.05)]
    assert violations(events, {"a": Final("FAILURE", error="WorkerLostError")}, EARLY) == []
    assert "failure says ValueError" in violations(events, {"a": Final("FAILURE", error="ValueError")}, EARLY)[0]
    assert violations(events, {"a": Final("SUCCESS")}, EARLY) != []


def test_a_failure_without_a_kill_is_seen() -> None:
    found = violations([*published("a"), *ran()], {"a": Final("FAILURE", error="WorkerLostError")}, EARLY)
    assert "no kill hit it" in found[0]


def test_a_late_task_is_not_given_up_before_its_last_death() -> None:
    lost = {"a": Final("FAILURE", error="WorkerLostError", dead="crashed")}
    events = [*published("a"), event("start", "a", 1.0, 9), killed(9, 1.05)]
    assert "given up after 1 deaths" in violations(events, lost)[0]
    for number in (8, 7):
        events += [event("start", "a", 2.0 + number, number, redelivered=True), killed(number, 3.0 + number)]
    assert violations(events, lost) == []


def test_more_deaths_than_allowed_are_seen() -> None:
    events = published("a")
    for number in range(4):
        events += [event("start", "a", 1.0 + number, number), killed(number, 1.5 + number)]
    found = violations(events, {"a": Final("FAILURE", error="WorkerLostError")})
    assert "3 deaths are the most" in found[0]


def test_a_result_that_no_run_gave_is_seen() -> None:
    assert "is that of no run" in violations([*published("a"), *ran()], {"a": Final("SUCCESS", "other")})[0]


def test_the_result_of_a_stale_run_is_seen() -> None:
    pause = event("pause", "", 1.05, 1, pids=[9], session=True)
    events = [*published("a"), *ran(pid=9), pause, *ran(t=2.0, again=True)]
    assert violations(events, GOOD) == []
    assert "I4" in violations(events, {"a": Final("SUCCESS", "a-9")})[0]


def test_a_revoked_task_that_starts_is_seen() -> None:
    events = [*published("a"), event("revoked", "a", 0.5), *ran()]
    assert "I8" in violations(events, GOOD)[0]
    assert violations([*published("a"), event("revoked", "a", 0.5)], {"a": Final("REVOKED")}) == []
    assert "I8" in violations([*published("a"), event("revoked", "a", 0.5)], {"a": Final("FAILURE")})[0]


def test_leftovers_and_a_queue_that_never_drains_are_seen() -> None:
    assert "I9" in violations([*published("a"), *ran()], GOOD, left=1)[0]
    assert check([*published("a"), *ran()], GOOD, LATE).violations == ["I10 the queue was never drained"]


def test_slow_recovery_is_seen() -> None:
    events = [*published("a"), event("start", "a", 1.0, 9), killed(9, 1.05), *ran(again=True)]
    found = check([*events, event("drained", "", 40.0)], GOOD, Rules(late=True, recovery=30.0))
    assert "I10 it took 38.9 s" in found.violations[0] or "I10 it took 39.0 s" in found.violations[0]


# --- cuts ------------------------------------------------------------------------------------------------------


def test_a_run_that_a_cut_hit_may_run_again_and_no_other() -> None:
    cut = [event("cut", t=1.05), event("mended", t=1.5)]
    assert violations([*published("a"), *ran(pid=9), *cut, *ran(t=2.0)], GOOD) == []
    late = [event("cut", t=9.0), event("mended", t=9.5)]
    assert "no kill hit its run" in violations([*published("a"), *ran(pid=9), *late, *ran(t=12.0)], GOOD)[0]
    early = [event("cut", t=0.1), event("mended", t=0.2)]
    again = [*published("a"), *early, *ran(t=5.0, pid=9), *ran(t=6.0)]
    assert "no kill hit its run" in violations(again, GOOD)[0]


def test_no_cut_explains_a_repeat_of_what_is_acknowledged_early() -> None:
    events = [*published("a"), *ran(pid=9), event("cut", t=1.05), event("mended", t=1.5), *ran(t=2.0)]
    assert "acknowledged early" in violations(events, GOOD, EARLY)[0]


def test_where_nothing_fences_the_first_result_counts() -> None:
    events = [
        *published("a"),
        *ran(pid=10),
        event("cut", t=1.05),
        event("mended", t=1.5),
        *ran(t=2.0, again=True, pid=9),
    ]
    assert "lease had passed" in violations(events, GOOD)[0]
    assert violations(events, GOOD, Rules(late=True, fenced=False)) == []


def test_all_has_to_be_done_in_time_after_a_cut_is_mended() -> None:
    events = [*published("a"), *ran(), event("cut", t=1.05), event("mended", t=15.0)]
    assert "I10" in violations(events, GOOD, Rules(late=True, recovery=4.0))[0]


def test_what_was_sent_twice_on_purpose_may_run_twice() -> None:
    events = [*published("a"), *ran(pid=9), *ran(t=2.0)]
    assert violations(events, GOOD, Rules(may_repeat=frozenset("a"))) == []


def test_an_early_acknowledgement_that_was_lost_with_its_connection_explains_a_repeat() -> None:
    rules = Rules(late=False, lost_acks=True)
    events = [*published("a"), *ran(pid=9), event("cut", t=1.05), event("mended", t=1.5), *ran(t=2.0)]
    assert violations(events, GOOD, rules) == []
    assert "no kill hit its run" in violations([*published("a"), *ran(pid=9), *ran(t=2.0)], GOOD, rules)[0]
