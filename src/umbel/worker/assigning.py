"""From an admitted delivery to the job that an executor is given, and from its report to what is settled."""

from __future__ import annotations

from typing import Any, NamedTuple

from umbel.app.execution import Job, Report
from umbel.app.traits import traits_of
from umbel.core.message import Delivery, End, Settlement
from umbel.worker.admission import Admitted
from umbel.worker.crew import HORIZON, Assigned, Runtimes
from umbel.worker.endings import sent_again
from umbel.worker.limits import hard_limit_of, unlimited
from umbel.worker.options import WorkerOptions

#: Looked up, not constructed: it happens for every task.
_ENDS = tuple(End)


class _Facts(NamedTuple):
    """What `Assigned` needs to know about a task: see there."""

    is_async: bool
    early: bool
    cost: float
    hard: float | None


class Assigner:
    """Numbers the jobs of one session and knows what is the same for all messages of a task."""

    def __init__(self, app: Any, options: WorkerOptions, runtimes: Runtimes) -> None:
        self._app = app
        self._options = options
        self._runtimes = runtimes
        self._last = 0
        self._facts: dict[str, _Facts] = {}

    def begin(self) -> None:
        """Start a round: what is known about tasks may have changed since the last one."""
        self._facts.clear()

    def reserve(self, count: int) -> None:
        """Leave out the next numbers: an executor gives them to what it goes on with."""
        self._last += count

    def assigned(self, item: Admitted, number: int = 0) -> Assigned:
        """Return what an executor is to be given for an admitted delivery, under the next number if none is given."""
        delivery = item.delivery
        facts = self._facts.get(delivery.task)
        if facts is None:
            facts = self._facts[delivery.task] = self._facts_of(delivery.task)
        is_async, early, cost, hard = facts
        if not unlimited(delivery.head):
            hard = hard_limit_of(self._app, delivery.task, delivery.head, self._options)
        if not number:
            number = self._last = self._last + 1
        if not item.verdict:
            return Assigned(delivery, number, cost, hard, is_async, early)
        # A conclusion is short work, but what it runs (handlers, errbacks) is unknown.
        cost = HORIZON / 2
        return Assigned(delivery, number, cost, hard, early=early, concluding=item.verdict, verdict_text=item.text)

    def _facts_of(self, name: str) -> _Facts:
        task = self._app.tasks.get(name)
        traits = traits_of(task) if task is not None else None
        return _Facts(
            traits is not None and traits.is_async,
            traits is None or not traits.keeping.acks_late,
            self._runtimes.expected(name),
            hard_limit_of(self._app, name, b"", self._options),
        )


def again(assigned: Assigned) -> Admitted:
    """Return what has come back unstarted, as it is to be given to an executor again."""
    if assigned.doomed:
        return Admitted(assigned.delivery, "revoked", "revoked")
    return Admitted(assigned.delivery, assigned.concluding, assigned.verdict_text if assigned.concluding else "")


def job_of(assigned: Assigned) -> Job:
    """Return what is sent to the executor."""
    d = assigned.delivery
    job = Job(
        assigned.number,
        d.id,
        d.task,
        d.queue,
        d.exchange,
        d.head,
        d.body,
        d.generation,
        d.crashes,
        d.token,
        d.priority,
        assigned.concluding,
        assigned.verdict_text if assigned.concluding else "",
        d.body_encoding,
    )
    if assigned.place >= 0:
        job.place, job.size = assigned.place, len(d.body)
    return job


def settlement_of(delivery: Delivery, report: Report) -> Settlement:
    """Return what is settled of an executor's report."""
    end, publish, parts = _ENDS[report.end], tuple(report.publish), report.parts
    if delivery.doubtful or report.kind == "ended":
        publish = sent_again(publish)
    if publish or parts or end is not End.DONE:
        return Settlement(delivery.tag, delivery.token, end, report.record, publish, report.due, report.reason, parts)
    return Settlement(delivery.tag, delivery.token, end, report.record)
