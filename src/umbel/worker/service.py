"""A long-lived loop in a thread of its own that can be started, asked to stop, and waited for."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

logger = logging.getLogger("umbel.worker")


#: A trouble that lasts is told again after this many seconds, then after twice as many, …: first and last.
_AGAIN_FIRST, _AGAIN_LAST = 1.0, 60.0


class Troubles:
    """Tells the log about failures that are tried again: once for all loops that meet the same one, then ever rarer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What failed → when to say so again (monotonic time), and how long to be silent after that.
        self._told: dict[str, tuple[float, float]] = {}

    def tell(self, what: str, exc: BaseException) -> None:
        """Write `what: exc`, unless the same error has been told lately by whomever."""
        text, now = str(exc), time.monotonic()
        with self._lock:
            again, pause = self._told.get(text, (0.0, _AGAIN_FIRST))
            if now < again:
                return
            if again and now - again > 2 * pause:
                pause = _AGAIN_FIRST
            if len(self._told) > 100:
                self._told.clear()
            self._told[text] = (now + pause, min(pause * 2, _AGAIN_LAST))
        logger.error("%s: %s", what, text)

    def over(self) -> None:
        """Say that what failed works again, if anything had failed."""
        if not self._told:
            return
        with self._lock:
            self._told.clear()
        logger.warning("The broker can be used again")


class Service(ABC):
    """Base of the consumer's loops: `start`, `stop` (may be called twice, from any thread), `join(deadline)`.

    A loop that raises says so in the log and calls `failed`, so that the whole session is started anew instead
    of living on without one of its parts.
    """

    name = "service"

    def __init__(self) -> None:
        self.stopping = threading.Event()
        #: Shared by the loops of a session.
        self.troubles = Troubles()
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
