"""One consumer session inside the test's own process: nothing forks, nothing is written but the progress file."""

from __future__ import annotations

import socket
import threading
import uuid
from typing import Any, Self

from tests.app.execution_kit import KitApp
from umbel.worker.link import Link, Note
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Progress
from umbel.worker.session import build_consumer


def make_app(**settings: Any) -> Any:
    """An app of its own on a memory engine."""
    return KitApp("kit", set_as_current=False, broker="memory://", changes=settings)


class Session:
    """A consumer with a pool of threads; `notes` is what it told its supervisor."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.app = app
        self.options = WorkerOptions(
            **{"hostname": "kit@host", "concurrency": 2, "pool": "threads", "heartbeat": 0.2, "lease": 2.0, **options}
        )
        self.owner = uuid.uuid4().hex
        self.progress = Progress.create(self.owner, 40)
        ours, theirs = socket.socketpair()
        self._link = Link(ours)
        self._theirs = Link(theirs)
        self.consumer = build_consumer(app, self.options, self.owner, self.progress, self._theirs)
        self.status: int | None = None
        self.notes: list[Note] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop(0.0)
        self._link.close()
        self._theirs.close()
        self.progress.remove()

    def stop(self, grace: float = -1.0) -> int:
        """Stop it warm (or within `grace` seconds) and return its exit status."""
        self._link.send(Note("stop", seconds=grace))
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        self._thread.join(15.0)
        assert not self._thread.is_alive(), "the session did not end"
        assert self.status is not None
        return self.status

    def told(self) -> list[Note]:
        """Return the notes that the supervisor has got so far."""
        self._link.sock.setblocking(False)
        while notes := self._link.receive():
            self.notes += notes
        return self.notes

    def hang_up(self) -> None:
        """Close the supervisor's end."""
        self._link.close()

    def _run(self) -> None:
        self.status = self.consumer.run()
