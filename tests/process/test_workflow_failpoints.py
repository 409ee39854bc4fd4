"""Chain, retry, replacement, chord, callback and errback, whose processes die at each step: one goes on, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.process.lab import Lab
from tests.process.nested import NODES, Expr, Maker, Plan, define, evaluate, signature
from umbel import chain, group
from umbel.app.ids import new_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

SETTINGS = {"worker_lease": 1.0, "worker_heartbeat": 0.25, "worker_max_crashes": 50, "workflow_inline_limit": 0}
#: How often the processes pass, at least, what executors do on the way: run, report, announce sizes, store pieces, read
#: them, let members in, close groups, and store the failures of what will not run.
IN_EXECUTORS = {"run": 20, "report": 20, "expect": 3, "plan": 3, "take": 5, "grow": 1, "forget": 3, "put": 1}
#: What ends a run where broker and store are one, and where they are two.
TOGETHER = {"settle": 12}
APART = {"publish": 8, "join": 6, "confirm": 2, "settle": 12}


def cases(process: str, steps: Mapping[str, int], *faults: str) -> list[Any]:
    """Give each step, before or after it: `kill`, or `raise`, which after it is an answer that was lost."""
    found = []
    for kind, passes in steps.items():
        for fault in faults:
            action, _, when = fault.partition("-")
            found.append(pytest.param(process, f"{kind}.{when}", action, passes, id=f"{process}-{kind}-{fault}"))
    return found


def going_well(maker: Maker) -> Expr:
    """Return a chain with a retry, a replacement, a chord that grows, a callback, and what follows them."""
    header = (maker.node("adds", links=False), maker.node("again", links=False), maker.node("replaced", links=False))
    body = Expr("chain", (maker.node("plain"), maker.node("again")))
    stages = (maker.node("again"), maker.node("replaced"), Expr("chord", (*header, body)), maker.node("plain"))
    return Expr("chain", (*stages, Expr("group", (maker.node("plain"), maker.node("replaced")))))


def walk(lab: Lab, process: str, point: str, fault: str, passes: int) -> None:
    """Let one process of this kind meet the fault at any of its passes, and prove that everything went on once."""
    define(lab.app)
    lab.app.conf.update(SETTINGS)
    maker, plan, ids = Maker(lab.seed, longest=0.0), Plan(), dict[str, str]()
    expr = going_well(maker)
    evaluate(expr, plan)
    signature(lab.app, expr, NODES[True], new_id, ids).apply_async()
    failing = _send_failing(lab)
    rule = f"{point}={fault}@{lab.rng.randint(1, passes)}"
    fired = lab.faulty_worker(rule, process, SETTINGS)
    finals = lab.wait_states([*ids.values(), *failing.values()], 30)
    if process == "executor" and point.startswith("settle"):
        _send_more(lab, fired)
    lab.drain(20)
    assert fired.exists(), f"{rule} was never passed"
    wrong = {label: finals[id] for label, id in ids.items() if finals[id].value != plan.values[label]}
    assert wrong == {}
    ended = {label: finals[id].state for label, id in failing.items()}
    assert ended == {label: "SUCCESS" if label.startswith("errback") else "FAILURE" for label in failing}
    _went_on_once(lab, {**ids, **failing})
    assert lab.dead() == {}


def _send_more(lab: Lab, fired: Path) -> None:
    """Send chains until one has met the fault: an executor goes on by itself only where nothing else is to be done."""
    node = lab.app.tasks[NODES[True]]
    for number in range(10):
        if not fired.exists():
            labels = [f"more{number}.{step}" for step in range(10)]
            chain(*(node.si(label, 0.0, "plain") for label in labels), app=lab.app).apply_async().get(timeout=20)


def _send_failing(lab: Lab) -> dict[str, str]:
    """Send a chain whose first task fails and calls an errback; return the ids of all tasks by label."""
    node = lab.app.tasks[NODES[True]]
    labels = ("bad", "errback", "later", "member1", "member2", "body")
    ids = {label: new_id() for label in labels}

    def of(label: str, manner: str = "plain") -> Any:
        return node.s(label, 0.0, manner).set(task_id=ids[label])

    bad = of("bad", "fails")
    bad.link_error(lab.app.tasks["lab.errback"].s("errback").set(task_id=ids["errback"]))
    chain(bad, of("later"), group(of("member1"), of("member2"), app=lab.app), of("body"), app=lab.app).apply_async()
    return ids


def _went_on_once(lab: Lab, ids: dict[str, str]) -> None:
    """Everything has run under one id, what must not run has not, and callbacks have run too."""
    seen: dict[str, set[str]] = {}
    for event in lab.journal.events():
        if event.what == "start":
            seen.setdefault(event.id.partition("/")[0], set()).add(event.more["task"])
    assert {label: each for label, each in seen.items() if len(each) > 1} == {}
    assert {label: each for label, each in seen.items() if label in ids and each != {ids[label]}} == {}
    assert {"later", "member1", "member2", "body"} & seen.keys() == set()
    # One fault explains one repeat, and where broker and store are two the repeat of what follows.
    most = max(Counter(lab.journal.ids("start")).values())
    assert most <= (2 if lab.deployment.fenced else 3)


EACH = ("kill-before", "kill-after", "raise-before", "raise-after")
POINT = ("process", "point", "fault", "passes")


# In an executor a call that was not made is tried again, and one whose executor died was perhaps made.
@pytest.mark.parametrize(
    POINT, cases("executor", IN_EXECUTORS, "kill-after", "raise-before") + cases("consumer", TOGETHER, *EACH)
)
def test_one_file_goes_on_once(lab: Lab, process: str, point: str, fault: str, passes: int) -> None:
    walk(lab, process, point, fault, passes)


IN_REDIS = {kind: IN_EXECUTORS[kind] for kind in ("expect", "plan", "grow", "forget")}


#: There an executor goes on by itself, and settles, where nothing else waits.
THE_REST = {"settle": 8}


@pytest.mark.parametrize(
    POINT,
    cases("executor", {**IN_REDIS, "settle": 1}, "kill-after") + cases("consumer", THE_REST, *EACH),
)
def test_redis_goes_on_once(redis_lab: Lab, process: str, point: str, fault: str, passes: int) -> None:
    walk(redis_lab, process, point, fault, passes)


ON_RABBITMQ = [
    *cases("consumer", APART, "kill-after"),
    *cases("consumer", {"join": 6}, "raise-after"),
    # An executor that has nothing else to do stores results by itself.
    *cases("executor", {"put": 6}, "kill-after"),
]


@pytest.mark.parametrize(POINT, ON_RABBITMQ)
def test_rabbitmq_goes_on_once(rabbit_lab: Lab, process: str, point: str, fault: str, passes: int) -> None:
    walk(rabbit_lab, process, point, fault, passes)
