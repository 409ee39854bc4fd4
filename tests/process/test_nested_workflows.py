"""Random nested workflows among workers that are killed: each ends, with the value that plain Python gives."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.process.checker import Final, Rules
from tests.process.lab import Lab, Worker, wait
from tests.process.nested import NODES, Expr, Maker, Plan, define, evaluate, signature, values_of
from tests.process.nested_check import Account, check
from tests.worker.session_kit import Session, make_app
from umbel.app.ids import new_id
from umbel.core.states import READY_STATES

#: How many workflows each test sends.
COUNT = int(os.environ.get("LAB_WORKFLOWS", "8"))
#: The same where nothing is killed: shapes that were wrong were one in a thousand.
MANY = 80

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90 + 3 * COUNT)]

SETTINGS = {
    "worker_lease": 2.0,
    "worker_heartbeat": 0.5,
    "worker_max_crashes": 20,
    "broker_heartbeat": 4,
    # What a task sends while the broker starts again: RabbitMQ takes its time.
    "task_publish_retry_policy": {"max_retries": None},
    "task_publish_deadline": 60,
}


class Trial:
    """Workflows in a lab, and what kills their workers."""

    def __init__(self, lab: Lab, *, late: bool, limit: int | None = 4096) -> None:
        self.lab = lab
        self.late = late
        define(lab.app)
        lab.app.conf.update(workflow_inline_limit=limit)
        self.settings = {**SETTINGS, "workflow_inline_limit": limit}
        self.maker = Maker(lab.seed, growing=late)
        self.plan = Plan()
        self.ids: dict[str, str] = {}
        self.sent: list[Any] = []
        self.workers = [self.worker() for _ in range(2)]

    def worker(self) -> Worker:
        return self.lab.worker("-c", "2", settings=self.settings, ready=False)

    def send(self, count: int) -> None:
        """Send random workflows; late acknowledged ones leave half of their ids to umbel."""
        for _ in range(count):
            expr = self.maker.workflow()
            evaluate(expr, self.plan)
            self.sent.append(self.built(expr).apply_async())

    def built(self, expr: Expr) -> Any:
        named = not self.late or self.lab.rng.random() < 0.5
        return signature(self.lab.app, expr, NODES[self.late], new_id if named else None, self.ids)

    # --- faults ------------------------------------------------------------------------------------------------

    def kill_worker(self) -> bool:
        worker = self.lab.rng.choice(self.workers)
        worker.kill()
        self.workers[self.workers.index(worker)] = self.worker()
        return True

    def kill_broker(self) -> bool:
        server = self.lab.deployment.server
        assert server is not None
        with self.lab.cut("killed"):
            server.kill()
            server.start()
            self.wait_start()
        return True

    def fault(self) -> Callable[[], bool]:
        """Choose what is killed next."""
        rng = self.lab.rng
        worker = rng.choice(self.workers)
        kills = [lambda: worker.kill_executor(rng), worker.kill_consumer, self.kill_worker]
        return rng.choices(kills, (6, 2, 1))[0]

    def run(self, count: int, pause: float = 0.25, broker_kills: int = 0) -> Account:
        """Send workflows, kill while they run, and check how everything ended."""
        began = time.monotonic()
        self.send(count)
        self.wait_start()
        while not self.done() and time.monotonic() < began + 60 + count:
            if broker_kills:
                broker_kills -= 1
                self.kill_broker()
            time.sleep(self.lab.rng.uniform(0.05, 2 * pause))
            self.fault()()
            self.wait_start()
        return self.account(time.monotonic() - began)

    def wait_start(self) -> None:
        """Wait until one more task has begun, or all is done: between two deaths there is some life."""
        before = self.lab.journal.count("start")
        try:
            wait(lambda: self.lab.journal.count("start") > before or self.done(), 25, "anything to begin")
        except AssertionError:
            print(self.account(0.0, drained=False))
            raise

    # --- looking -----------------------------------------------------------------------------------------------

    def started(self) -> dict[str, str]:
        """Return the id of each label that is known."""
        found = dict(self.ids)
        for event in self.lab.journal.events():
            if event.what == "start":
                found[event.id.partition("/")[0]] = event.more["task"]
        return found

    def finals(self) -> dict[str, Final]:
        """Return how each task has ended that has."""
        ids = {label: id for label, id in self.started().items() if label in self.plan.values}
        finals = self.lab.finals(list(ids.values()))
        return {label: finals[id] for label, id in ids.items() if id in finals}

    def done(self) -> bool:
        """Tell whether no message is left that nobody has settled."""
        return self.lab.left() == 0

    def account(self, seconds: float, *, drained: bool = True) -> Account:
        if drained:
            self.lab.drain(60)
        account = check(self.lab.journal.events(), self.plan, self.ids, self.finals(), self.rules())
        # An early one whose process dies, and then the process that was to call its errbacks, is one to be looked at.
        dead = {id: why for id, why in self.lab.dead().items() if self.late or not why.startswith("lost: ")}
        if dead:
            account.violations.append(f"dead letters: {dead}")
        if any(worker.said("replaced by") for worker in self.lab.workers):
            account.violations.append("the replacement of a task is told as a warning or an error")
        kills = self.lab.journal.count("kill") + self.lab.journal.count("cut")
        print(f"{len(self.sent)} workflows, {kills} kills, {seconds:.1f} s: {account}")
        assert account.violations == [], str(account)
        return account

    def rules(self) -> Rules:
        deployment = self.lab.deployment
        # Where broker and store are two, an outcome takes several steps, each of them slow on a busy machine.
        unsettled = 2.0 if deployment.fenced else 6.0
        return Rules(late=self.late, fenced=deployment.fenced, lost_acks=deployment.lost_acks, unsettled=unsettled)


MODES = [pytest.param(True, id="late"), pytest.param(False, id="early")]


@pytest.mark.parametrize("late", MODES)
def test_workflows_outlive_their_workers_in_one_file(lab: Lab, late: bool) -> None:
    trial = Trial(lab, late=late, limit=0 if late else 4096)
    assert trial.run(COUNT).hit


@pytest.mark.parametrize("late", MODES)
def test_workflows_outlive_their_workers_on_redis(redis_lab: Lab, late: bool) -> None:
    trial = Trial(redis_lab, late=late, limit=4096 if late else 0)
    assert trial.run(COUNT).hit


@pytest.mark.parametrize("late", MODES)
def test_workflows_outlive_their_workers_on_rabbitmq_with_results_in_redis(rabbit_lab: Lab, late: bool) -> None:
    trial = Trial(rabbit_lab, late=late, limit=0 if late else 4096)
    assert trial.run(COUNT).hit


def test_workflows_outlive_their_workers_on_rabbitmq_with_results_in_a_file(rabbit_file_lab: Lab) -> None:
    trial = Trial(rabbit_file_lab, late=True)
    assert trial.run(COUNT).hit


def test_workflows_outlive_their_redis_and_their_workers(own_redis_lab: Lab) -> None:
    trial = Trial(own_redis_lab, late=True, limit=0)
    assert trial.run(COUNT, broker_kills=3).hit


def test_workflows_outlive_their_rabbitmq_and_their_workers(own_rabbit_lab: Lab) -> None:
    trial = Trial(own_rabbit_lab, late=True)
    assert trial.run(COUNT, broker_kills=1).hit


def test_workflows_have_the_same_values_in_the_caller(lab: Lab) -> None:
    define(lab.app)
    maker = Maker(lab.seed, longest=0.0)
    for _ in range(40):
        expr, plan = maker.workflow(3, 40), Plan()
        leaves = evaluate(expr, plan)
        result = signature(lab.app, expr, NODES[True], None, {}).apply()
        value = result.get()
        assert (value if expr.is_many() else [value]) == values_of(plan, leaves)


def test_workflows_have_the_same_values_in_one_process(lab: Lab) -> None:
    app = make_app(workflow_inline_limit=0)
    define(app)
    maker, plan, ids = Maker(lab.seed, longest=0.0, growing=True), Plan(), dict[str, str]()
    with Session(app):
        for _ in range(MANY):
            expr = maker.workflow()
            evaluate(expr, plan)
            signature(app, expr, NODES[True], new_id, ids).apply_async()
        wait(lambda: len(ended(app, ids)) == len(ids), 60, "all tasks to end")
    found = ended(app, ids)
    assert {label: found[id] for label, id in ids.items()} == {label: ("SUCCESS", plan.values[label]) for label in ids}
    assert lab.journal.count("start") == lab.journal.count("end") == len(set(lab.journal.ids("start")))


def ended(app: Any, ids: dict[str, str]) -> dict[str, tuple[str, Any]]:
    """Return state and value of those tasks that have ended, by id."""
    records = app.store.get(list(ids.values()), time.time())
    return {
        id: (record.state, json.loads(record.meta)["result"])
        for id, record in records.items()
        if record.state in READY_STATES
    }
