"""Says whether nested workflows kept the promises: what ran, how often, on what, and how everything ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.process.checker import Final, Rules, Run, hits, runs_of
from tests.process.journal import Event
from tests.process.nested import Plan

SUCCESS, FAILURE = "SUCCESS", "FAILURE"


@dataclass
class Account:
    """Counts, and what was broken in sentences."""

    tasks: int = 0
    runs: int = 0
    repeated: int = 0
    hit: int = 0
    failed: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {value}" for name, value in vars(self).items() if name != "violations")
        return "\n  ".join([counts, *self.violations[:40]])


def check(
    events: list[Event], plan: Plan, ids: Mapping[str, str], finals: Mapping[str, Final], rules: Rules
) -> Account:
    """Check everything that was planned. `ids` has the ids of those labels that the client named itself."""
    runs = runs_of(events)
    hit = hits(events, runs, rules)
    account = Account(tasks=len(plan.values), runs=len(runs), hit=len(hit))
    by_label: dict[str, list[Run]] = {}
    for run in runs:
        by_label.setdefault(run.id.partition("/")[0], []).append(run)
    _repeats(account, runs, hit, plan, rules)
    _identity(account, events, ids)
    _values(account, runs, plan)
    for label in plan.values:
        _end(account, label, plan, by_label, hit, finals.get(label, Final()), rules)
    return account


def _repeats(account: Account, runs: list[Run], hit: set[Run], plan: Plan, rules: Rules) -> None:
    """Everything ran once for each retry; again only where a kill explains it, and late acknowledged.

    Where a message may be in its queue twice, a kill that hit what it follows from explains that too.
    """
    owners = {_owner(run.id) for run in hit}
    doubled = _downstream(plan, owners) if rules.lost_acks else set()
    same: dict[str, list[Run]] = {}
    for run in runs:
        same.setdefault(run.id, []).append(run)
    for id, those in same.items():
        if len(those) == 1:
            continue
        account.repeated += 1
        if not rules.late and not rules.lost_acks:
            account.violations.append(f"{id} is acknowledged early and ran {len(those)} times")
        for run in sorted(those, key=lambda each: each.start)[:-1]:
            # What a task sends by itself, it sends again when it runs again.
            sent_again = ".x/" in id and _owner(id) in owners
            if run not in hit and not sent_again and _owner(id) not in doubled:
                account.violations.append(f"{id} ran again although no kill hit its run in process {run.pid}")


def _owner(run: str) -> str:
    """Return the label of the node that a run belongs to."""
    return run.partition("/")[0].partition(".")[0]


def _downstream(plan: Plan, labels: set[str]) -> set[str]:
    """Return labels, and those of everything that follows from them."""
    found = set(labels)
    # What is planned comes in the order in which it can run.
    for label, after in plan.after.items():
        if {_owner(one) for one in after} & found:
            found.add(_owner(label))
    return found


def _identity(account: Account, events: list[Event], ids: Mapping[str, str]) -> None:
    """Each label has run under one id, that which it was given."""
    known: dict[str, set[str]] = {label: {id} for label, id in ids.items()}
    for event in events:
        if event.what == "start":
            label, task = event.id.partition("/")[0], str(event.more["task"])
            known.setdefault(label, set()).add(task)
    account.violations += [f"{label} ran under {len(each)} ids" for label, each in known.items() if len(each) > 1]


def _values(account: Account, runs: list[Run], plan: Plan) -> None:
    """What each run gave back is what plain Python gives."""
    for run in runs:
        label = run.id.partition("/")[0]
        if label not in plan.values and label not in plan.inner:
            account.violations.append(f"{label} ran and belongs to no workflow")
        elif run.value is not None and run.value != plan.inner.get(label, plan.values.get(label)):
            account.violations.append(f"{label} gave {run.value} and not {plan.values.get(label)}")


def _end(
    account: Account,
    label: str,
    plan: Plan,
    by_label: Mapping[str, list[Run]],
    hit: set[Run],
    final: Final,
    rules: Rules,
) -> None:
    """It has succeeded with its value; it has failed only where a kill hit it, or what it waits for has failed."""
    own = [run for name in _names(label) for run in by_label.get(name, ())]
    before = plan.after[label] & plan.failed
    if before:
        plan.failed.add(label)
        if own:
            account.violations.append(f"{label} ran although {sorted(before)} had failed")
        if final.state != FAILURE and label not in plan.callbacks:
            account.violations.append(f"{label} is {final.state or 'nothing'!r} although {sorted(before)} had failed")
        return
    if final.state == SUCCESS:
        if final.value != plan.values[label]:
            account.violations.append(f"{label} is {final.value} and not {plan.values[label]}")
        return
    plan.failed.add(label)
    account.failed += 1
    # A process may die when the start has been stored, and before the task can say that it starts.
    explained = not rules.late and (not own or any(run in hit for run in own)) and final.state == FAILURE
    if not explained:
        ended = f"{final.state or 'nothing'}({final.error})"
        account.violations.append(f"{label} ended as {ended}, ran {len(own)} times, and no kill explains that")
    elif final.error not in (("WorkerLostError", "ChordError") if own else ("WorkerLostError",)):
        account.violations.append(f"{label} was killed and its failure says {final.error}")


def _names(label: str) -> list[str]:
    return [label, *(f"{label}.{part}" for part in "abc")]
