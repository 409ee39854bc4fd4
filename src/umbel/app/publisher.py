"""The one thread that publishes for event loops: callers that wait together are stored together."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from umbel.app.sending import publish
from umbel.core.message import Message

if TYPE_CHECKING:
    import asyncio

__all__ = ["Publisher", "publisher_of"]

_MOST = 1000


class _Waiting:
    """One caller: its message, and the future of its own event loop."""

    __slots__ = ("future", "loop", "message")

    def __init__(self, message: Message, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self.message = message
        self.loop = loop
        self.future = future

    def finish(self, error: BaseException | None) -> None:
        """Wake the caller, unless its loop has closed meanwhile."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._resolve, error)

    def _resolve(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class Publisher:
    """Publishes for one app in this process; its thread starts with the first message and ends when idle."""

    def __init__(self, app: Any, idle: float = 5.0) -> None:
        self._app = app
        self._idle = idle
        self._pid = os.getpid()
        self._ready = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._thread: threading.Thread | None = None

    @property
    def usable(self) -> bool:
        """False in a forked child: the thread stayed with the parent."""
        return self._pid == os.getpid()

    async def publish(self, message: Message) -> None:
        """Return once the message is stored. A caller that is cancelled before its turn sends nothing."""
        import asyncio

        loop = asyncio.get_running_loop()
        waiting = _Waiting(message, loop, loop.create_future())
        with self._ready:
            self._queue.append(waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="umbel-publisher", daemon=True)
                self._thread.start()
            self._ready.notify()
        await waiting.future

    def _serve(self) -> None:
        while True:
            with self._ready:
                if not self._queue and not self._ready.wait_for(lambda: bool(self._queue), self._idle):
                    self._thread = None
                    return
                count = min(len(self._queue), _MOST)
                batch = [self._queue.popleft() for _ in range(count)]
            self._send([waiting for waiting in batch if not waiting.future.cancelled()])

    def _send(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            refusals = publish(self._app, [waiting.message for waiting in batch])
        except BaseException as error:  # noqa: BLE001 - every caller hears of it
            for waiting in batch:
                waiting.finish(error)
            return
        errors = {refusal.index: refusal.error for refusal in refusals}
        for index, waiting in enumerate(batch):
            waiting.finish(errors.get(index))


def publisher_of(app: Any) -> Publisher:
    """Return the publisher of `app` in this process."""
    found: Publisher | None = app.__dict__.get("_publisher")
    if found is None or not found.usable:
        # Of two threads that come here together both use the one that was set first.
        if found is not None:
            app.__dict__.pop("_publisher", None)
        found = app.__dict__.setdefault("_publisher", Publisher(app))
    return found
