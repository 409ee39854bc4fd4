"""A long-lived loop in a thread of its own that can be started, asked to stop, and waited for."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

logger = logging.getLogger("umbel.worker")


class Service(ABC):
    """Base of the consumer's loops: `start`, `stop` (may be called twice, from any thread), `join(deadline)`.

    A loop that raises says so in the log and calls `failed`, so that the whole session is started anew instead
    of living on without one of its parts.
    """

    name = "service"

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.failed: Callable[[str, BaseException], None] = lambda _name, _exc: None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread = threading.Thread(target=self._guarded, name=f"umbel-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the loop to end."""
        self.stopping.set()
        self.wake()

    def wake(self) -> None:  # noqa: B027 - only loops that block need it
        """End a wait of the loop."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the loop; False when it still runs after `timeout` seconds."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @abstractmethod
    def run(self) -> None:
        """Do the work until `stopping` is set."""

    def _guarded(self) -> None:
        try:
            self.run()
        except Exception as exc:
            logger.exception("The worker's %s failed", self.name)
            self.failed(self.name, exc)
