"""Says whether a history kept the promises: a pure function of the journal and the final states.

It knows nothing of how umbel works. In the words of Jepsen: *attempts* were intended, *acknowledged* calls
returned, *lost* ones were acknowledged and left no trace, *recovered* ones were not acknowledged and ran all
the same, *unexpected* ones ran without having been intended, *duplicated* ones ran more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.process.journal import Event

FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass(frozen=True)
class Final:
    """What the queue says about an id at the end: its state, and the reason if it is a dead letter."""

    state: str = ""
    value: Any = None
    #: Name of the exception of a FAILURE.
    error: str = ""
    #: Reason of the dead letter; "" when there is none.
    dead: str = ""


@dataclass(frozen=True)
class Rules:
    """What was promised in this run."""

    #: acks_late: run again where a kill hit; else never twice, and a killed one has failed.
    late: bool = False
    #: Deaths of its process after which a message is a dead letter.
    max_crashes: int = 3
    #: A run that ended so many seconds before its whole session was killed may not have been settled yet.
    unsettled: float = 1.0
    #: Seconds from the last fault until all is done.
    recovery: float = 30.0
    #: Ids whose task fails by itself or may end anyhow.
    may_fail: frozenset[str] = frozenset()
    #: Ids that were sent twice on purpose, or by a fault that the test explains.
    may_repeat: frozenset[str] = frozenset()
    #: The broker refuses what a run says whose lease has passed to another; else the first word counts.
    fenced: bool = True
    #: An acknowledgement may be lost with its connection: early ones repeat too, where a kill or a cut explains it.
    lost_acks: bool = False
    #: Seconds after the end of a cut in which what was held before may still begin.
    aftermath: float = 3.0


@dataclass(frozen=True)
class Run:
    """One start of a task, and its end if it came to that."""

    id: str
    pid: int
    start: float
    redelivered: bool
    end: float | None = None
    value: Any = None


@dataclass
class Verdict:
    """Counts, and what was broken in sentences; nothing broken is an empty list."""

    attempts: int = 0
    acknowledged: int = 0
    lost: int = 0
    recovered: int = 0
    unexpected: int = 0
    duplicated: int = 0
    killed_runs: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {value}" for name, value in vars(self).items() if name != "violations")
        return "\n  ".join([counts, *self.violations[:40]])


def check(
    events: Sequence[Event], finals: Mapping[str, Final], rules: Rules | None = None, *, left: int = 0
) -> Verdict:
    """Check a history. `left` counts messages that are still in queues or leased at the end."""
    rules = rules or Rules()
    runs = runs_of(events)
    by_id: dict[str, list[Run]] = {}
    for run in runs:
        by_id.setdefault(run.id, []).append(run)
    hit = hits(events, runs, rules)
    verdict = Verdict(
        attempts=len(_ids(events, "intended")), acknowledged=len(_ids(events, "returned")), killed_runs=len(hit)
    )
    _intentions(verdict, events, by_id, finals)
    for id, those in by_id.items():
        _repeats(verdict, id, those, hit, rules)
        _final(verdict, id, those, finals.get(id, Final()), hit, rules)
    _revoked(verdict, events, runs, finals)
    _quiet(verdict, events, rules, left)
    return verdict


def runs_of(events: Iterable[Event]) -> list[Run]:
    """Pair every start with the end that the same process wrote for the same id."""
    open_runs: dict[tuple[str, int], int] = {}
    runs: list[Run] = []
    for event in events:
        key = (event.id, event.pid)
        if event.what == "start":
            open_runs[key] = len(runs)
            runs.append(Run(event.id, event.pid, event.t, bool(event.more.get("redelivered"))))
        elif event.what == "end" and key in open_runs:
            index = open_runs.pop(key)
            begun = runs[index]
            runs[index] = Run(begun.id, begun.pid, begun.start, begun.redelivered, event.t, event.more.get("value"))
    return runs


def hits(events: Iterable[Event], runs: Sequence[Run], rules: Rules) -> set[Run]:
    """Return the runs that a kill (or a pause beyond the lease) may have cut off before they were settled.

    Of a killed executor that is the run under way, or its last one; of a killed session also what ended shortly
    before, since its outcome may not have been stored. A cut (the broker or the way to it was away, until it was
    mended) hits whatever ran while it lasted.
    """
    events = list(events)
    hit = _cut_off(events, runs, rules)
    for event in events:
        if event.what not in {"kill", "pause"}:
            continue
        pids = set(event.more.get("pids", ()))
        for pid in pids:
            those = [run for run in runs if run.pid == pid]
            hit.update(run for run in those if run.end is None)
            if event.more.get("session"):
                since = event.t - rules.unsettled
                hit.update(run for run in those if run.end is not None and run.end >= since)
            elif those and those[-1].end is not None and those[-1].end >= event.t - rules.unsettled:
                hit.add(those[-1])
    return hit


def _cut_off(events: Iterable[Event], runs: Sequence[Run], rules: Rules) -> set[Run]:
    hit: set[Run] = set()
    begun: float | None = None
    for event in events:
        if event.what == "cut":
            begun = event.t
        elif event.what == "mended" and begun is not None:
            since, until = begun - rules.unsettled, event.t + rules.aftermath
            hit.update(run for run in runs if run.start <= until and (run.end is None or run.end >= since))
            begun = None
    return hit


def _ids(events: Iterable[Event], what: str) -> set[str]:
    return {event.id for event in events if event.what == what}


def _intentions(
    verdict: Verdict, events: Sequence[Event], by_id: Mapping[str, list[Run]], finals: Mapping[str, Final]
) -> None:
    """I1: what was acknowledged has ended somehow. I2: nothing runs that nobody wanted."""
    intended, returned = _ids(events, "intended"), _ids(events, "returned")
    for id in sorted(returned):
        final = finals.get(id, Final())
        if final.state not in FINAL_STATES and not final.dead:
            verdict.lost += 1
            ran = len(by_id.get(id, ()))
            verdict.violations.append(f"I1 lost: {id} was accepted, ran {ran} times, state {final.state or 'none'!r}")
        elif final.state == "SUCCESS" and all(run.end is None for run in by_id.get(id, ())):
            verdict.violations.append(f"I1 {id} is SUCCESS and no run of it came to its end")
    for id in sorted(by_id.keys() - intended):
        verdict.unexpected += 1
        verdict.violations.append(f"I2 unexpected: {id} ran and was never intended")
    verdict.recovered = len((by_id.keys() & intended) - returned)


def _repeats(verdict: Verdict, id: str, runs: list[Run], hit: set[Run], rules: Rules) -> None:
    """I3: every repeat needs a kill that explains it; early-acknowledged tasks have none at all."""
    if len(runs) == 1:
        return
    verdict.duplicated += 1
    ordered = sorted(runs, key=lambda run: run.start)
    if id in rules.may_repeat:
        return
    if not rules.late and not rules.lost_acks:
        verdict.violations.append(f"I3 {id} is acknowledged early and ran {len(runs)} times")
    for run in ordered[:-1]:
        if run not in hit:
            verdict.violations.append(f"I3 {id} ran again although no kill hit its run in process {run.pid}")
    if len(runs) > rules.max_crashes + sum(run.end is not None for run in runs):
        verdict.violations.append(f"I3 {id} ran {len(runs)} times; {rules.max_crashes} deaths are the most")


def _final(verdict: Verdict, id: str, runs: list[Run], final: Final, hit: set[Run], rules: Rules) -> None:
    """I5: the state is terminal and tells what happened, by the word of the newest run (I4)."""
    ended = [run for run in runs if run.end is not None]
    cut = [run for run in runs if run in hit]
    if final.state == "SUCCESS":
        values = [run.value for run in ended]
        if values and final.value not in values:
            verdict.violations.append(f"I5 {id}: result {final.value!r} is that of no run ({values})")
        newest = [run.value for run in ended if run.redelivered]
        if rules.fenced and newest and final.value not in newest:
            verdict.violations.append(f"I4 {id}: the result is that of a run whose lease had passed to another")
    elif final.state == "FAILURE" and id not in rules.may_fail:
        if not cut:
            verdict.violations.append(f"I5 {id} is FAILURE({final.error}) and no kill hit it")
        elif final.error != "WorkerLostError":
            verdict.violations.append(f"I5 {id} was killed and its failure says {final.error}")
        elif rules.late and len(cut) < rules.max_crashes:
            verdict.violations.append(f"I5 {id} was given up after {len(cut)} deaths")
    if not rules.late and any(run.end is None for run in cut) and final.state not in {"FAILURE", "REVOKED"}:
        verdict.violations.append(f"I5 {id} was killed while it ran and its state is {final.state or 'none'!r}")


def _revoked(verdict: Verdict, events: Iterable[Event], runs: Iterable[Run], finals: Mapping[str, Final]) -> None:
    """I8: what was revoked before it started never starts, and says so."""
    when = {event.id: event.t for event in events if event.what == "revoked"}
    for run in runs:
        if run.start > when.get(run.id, run.start):
            verdict.violations.append(f"I8 {run.id} started after it had been revoked")
    started = {run.id for run in runs}
    for id in sorted(when.keys() - started):
        if id in finals and finals[id].state != "REVOKED":
            verdict.violations.append(f"I8 {id} was revoked before it started and is {finals[id].state!r}")


def _quiet(verdict: Verdict, events: Sequence[Event], rules: Rules, left: int) -> None:
    """I9: nothing is left over. I10: after the last fault all is done in time."""
    if left:
        verdict.violations.append(f"I9 {left} messages are left over")
    drained = [event.t for event in events if event.what == "drained"]
    faults = [event.t for event in events if event.what in {"kill", "pause", "resume", "cut", "mended"}]
    if not drained:
        verdict.violations.append("I10 the queue was never drained")
    elif faults and drained[-1] - max(faults) > rules.recovery:
        took = drained[-1] - max(faults)
        verdict.violations.append(f"I10 it took {took:.1f} s from the last fault to the last task")
