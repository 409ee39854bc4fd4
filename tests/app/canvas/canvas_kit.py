"""An app with a few tasks, and a worker that runs a workflow to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.app.execution_kit import MiniWorker, make_app


class Kit:
    """`kit.add`, `kit.total` …, and `kit.value(expression)`: send it, run all, read the result."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.app = make_app(folder, **settings)
        self.ran: list[str] = []
        self._define()
        self._worker: MiniWorker | None = None

    def _define(self) -> None:
        app, ran = self.app, self.ran

        @app.task(name="kit.add")
        def add(x: Any, y: Any = 0, z: Any = 0) -> Any:
            return x + y + z

        @app.task(name="kit.total")
        def total(x: Any, plus: Any = 0) -> Any:
            return (sum(x) if isinstance(x, list) else x) + plus

        @app.task(name="kit.keep")
        def keep(*args: Any, **kwargs: Any) -> Any:
            return [list(args), kwargs]

        @app.task(name="kit.fail")
        def fail(*_: Any) -> None:
            raise ValueError("on purpose")

        @app.task(name="kit.note")
        def note(*args: Any) -> None:
            ran.append(repr(args))

        self.add, self.total, self.keep, self.fail, self.note = add, total, keep, fail, note
        self.names = {"add": add, "total": total, "keep": keep, "fail": fail, "note": note}

    @property
    def worker(self) -> MiniWorker:
        """The worker, made when it is first needed."""
        if self._worker is None:
            self._worker = MiniWorker(self.app)
        return self._worker

    def value(self, sig: Any, *args: Any, **options: Any) -> Any:
        """Send a workflow, run all of it, and return its value."""
        result = sig.apply_async(args, **options)
        self.worker.drain(2000)
        return result.get(timeout=5)

    def waiting(self) -> list[Any]:
        """Take the messages that wait, in order, as they were stored."""
        found = []
        while leased := self.worker.lease():
            found += leased
        return found
