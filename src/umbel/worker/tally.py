"""What a session has run: how many tasks of each name, and how long they took."""

from __future__ import annotations

from umbel.app.execution import Report
from umbel.worker.crew import Assigned, Runtimes


class Tally:
    """The runs of one batch of reports; `enter` counts them in."""

    def __init__(self, totals: dict[str, int], runtimes: Runtimes) -> None:
        self._totals = totals
        self._runtimes = runtimes
        #: Seconds by name of the task.
        self._runs: dict[str, list[float]] = {}

    def add(self, assigned: Assigned, report: Report) -> None:
        """Take in what came back with a report."""
        task = assigned.delivery.task
        if assigned.concluding:
            self._totals[task] = self._totals.get(task, 0) + 1
        else:
            self.add_run(task, report.runtime)

    def add_run(self, task: str, seconds: float) -> None:
        """Take in a run."""
        self._runs.setdefault(task, []).append(seconds)

    def enter(self) -> None:
        """Count the runs, and learn from them how long such tasks take."""
        for task, lengths in self._runs.items():
            self._totals[task] = self._totals.get(task, 0) + len(lengths)
            if len(lengths) > 1:
                self._runtimes.learn(task, max(lengths))
            self._runtimes.learn(task, sum(lengths) / len(lengths), len(lengths))
