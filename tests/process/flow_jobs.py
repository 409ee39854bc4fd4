"""The tasks of the tests of workflows. What a run returns is different each time, so that a repeated one shows."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.process import journal
from umbel import Umbel, chain, chord, group
from umbel.core.errors import Ignore


def say(what: str, id: str, **more: Any) -> None:
    """Write into the journal that the environment names."""
    journal.write(os.environ["LAB_JOURNAL"], what, id, **more)


def define(app: Umbel) -> None:
    """Give the tasks to an app."""
    for group_of_tasks in (_values, _ends, _turns):
        group_of_tasks(app)


def _value(task: Any, place: Any, seconds: float) -> list[Any]:
    say("start", task.request.id)
    time.sleep(seconds)
    return [place, f"{os.getpid()}-{time.monotonic_ns()}"]


def _values(app: Umbel) -> None:
    @app.task(bind=True, name="flow.value", acks_late=True)
    def value(self: Any, place: Any, seconds: float = 0.0) -> list[Any]:
        return _value(self, place, seconds)

    @app.task(bind=True, name="flow.value_early")
    def value_early(self: Any, place: Any, seconds: float = 0.0) -> list[Any]:
        return _value(self, place, seconds)

    @app.task(bind=True, name="flow.body", acks_late=True)
    def body(self: Any, values: Any) -> Any:
        say("start", self.request.id)
        say("body", self.request.id, values=values)
        return values


def _ends(app: Umbel) -> None:
    @app.task(bind=True, name="flow.ignore", acks_late=True)
    def ignore(self: Any) -> None:
        raise Ignore

    @app.task(bind=True, name="flow.fail", acks_late=True)
    def fail(self: Any) -> None:
        say("start", self.request.id)
        raise ValueError("no")

    @app.task(bind=True, name="flow.errback", acks_late=True)
    def errback(self: Any, failed: str) -> None:
        say("errback", failed)


def _turns(app: Umbel) -> None:
    @app.task(bind=True, name="flow.retry", acks_late=True)
    def retry(self: Any) -> str:
        say(f"attempt {self.request.retries}", self.request.id)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return "third"

    @app.task(bind=True, name="flow.adds")
    def adds(self: Any) -> str:
        self.add_to_chord(app.tasks["flow.value"].si("added"))
        return "adds"

    @app.task(bind=True, name="flow.replace", acks_late=True)
    def replace(self: Any, how: str) -> Any:
        say("replaced", self.request.id)
        given = app.tasks["flow.value"]
        kinds = {
            "task": lambda: given.si("task"),
            "chain": lambda: chain(given.si(1), given.si("chain")),
            "chord": lambda: chord(group(given.si(1), given.si(2)), given.si("chord")),
        }
        return self.replace(kinds[how]())
