"""A worker in miniature for tests of execution: lease, run, commit, all in one thread and without processes."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from umbel.app.app import Umbel
from umbel.app.execution import Job, Report, Runner
from umbel.core.message import Delivery, End, Settlement
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.seam import Lease
from umbel.engine.settle import commit


class TurnedClock:
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


class KitApp(Umbel):
    """An app whose tasks stay its own, so that tests may use one name twice."""

    def task(self, *args: Any, **options: Any) -> Any:
        decorate = super().task(**{"shared": False, **options})
        return decorate(args[0]) if args else decorate


def make_app(folder: Path, **settings: Any) -> Any:
    """An app of its own on a fresh SQLite file."""
    return KitApp("kit", set_as_current=False, broker=f"sqlite:///{folder}/kit.db", changes=settings)


def add_sums(app: Any) -> tuple[Any, Any]:
    """Give an app the tasks of arithmetic: `kit.add` of numbers, and `kit.total`, which returns what it gets."""

    @app.task(name="kit.add")
    def add(*numbers: int) -> int:
        return sum(numbers)

    @app.task(name="kit.total")
    def total(values: list[Any]) -> list[Any]:
        return values

    return add, total


def job_of(delivery: Delivery, number: int = 1, **verdict: Any) -> Job:
    return Job(
        number,
        delivery.id,
        delivery.task,
        delivery.queue,
        delivery.exchange,
        delivery.head,
        delivery.body,
        delivery.generation,
        delivery.crashes,
        delivery.token,
        delivery.priority,
        **verdict,
    )


class MiniWorker:
    """Leases what is due, runs it, commits the outcome; keeps the reports."""

    def __init__(self, app: Any, seed: int = 1) -> None:
        self.app = app
        self.clock = TurnedClock()
        self.runner = Runner(app, "mini@host", clock=SYSTEM_CLOCK, rng=random.Random(seed))
        self.reports: list[Report] = []

    def lease(self) -> list[Delivery]:
        return self.app.broker.lease(Lease(("celery", "celery.umbel"), "mini", 10, 30.0), self.clock.now())

    def commit(self, delivery: Delivery, report: Report) -> None:
        settlement = Settlement(
            delivery.tag,
            delivery.token,
            End(report.end),
            report.record,
            tuple(report.publish),
            report.due,
            report.reason,
            report.parts,
        )
        stale = commit(self.app.engine, self.app.engine, "mini", [settlement], self.clock.now())
        assert not stale
        self.reports.append(report)

    def step(self, **verdict: Any) -> Report | None:
        """Run one message that is due; None where there is none."""
        found = self.lease()
        for delivery in found[1:]:
            self.app.broker.settle("mini", [Settlement(delivery.tag, delivery.token, End.RELEASE)], self.clock.now())
        if not found:
            return None
        job = job_of(found[0], **verdict)
        report = self.runner.conclude(job) if verdict else self.runner.run(job)
        self.commit(found[0], report)
        return report

    def drain(self, most: int = 50) -> list[Report]:
        """Run until nothing is due."""
        reports = []
        while (report := self.step()) is not None:
            reports.append(report)
            assert len(reports) <= most, "the queue never gets empty"
        return reports

    def forward(self, seconds: float) -> None:
        self.clock.ahead += seconds
