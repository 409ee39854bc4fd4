"""What results let a program do about their tasks: revoke them, cancel their workflow, run again what failed in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from umbel.app.result_graph import ResultGraph, build_graph, unfinished
from umbel.app.retry_failed import retry_failed
from umbel.core.errors import NotSupportedError

__all__ = ["InWorkflow", "Revocable", "revocation"]


class Revocable:
    """A result, or several, whose tasks can be revoked."""

    app: Any

    @abstractmethod
    def _task_ids(self) -> str | Sequence[str]:
        """Return the id or ids of the tasks."""

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Revoke the task, or all of them: none starts; with `terminate` it is killed with `signal` where it runs."""
        return self.app.control.revoke(self._task_ids(), **revocation(connection, terminate, signal, wait, timeout))


class InWorkflow(Revocable):
    """A result that knows the workflow around it."""

    def cancel(self, terminate: bool = False, signal: str | None = None) -> list[str]:
        """Revoke every task of the workflow that has not ended: steps before and after it, groups, chord bodies.

        What runs goes on to its end, and nothing follows it, or is killed with `signal` (`terminate`). A step that has
        no message yet ends as REVOKED when it is its turn. Returns the ids that were revoked. A workflow is known from
        the result that sending it gave; a result made from a bare id knows only what its tasks have sent so far.
        """
        ids = unfinished(self)
        if ids:
            self.app.control.revoke(ids, terminate=terminate, signal=signal or "SIGTERM")
        return ids

    def retry_failed(self, timeout: float = 10.0) -> list[str]:
        """Run again the tasks of the workflow that have failed, and let it go on; return their ids.

        What had ended well stays, and what was to follow a failed task follows it then: the rest of a chain, the body
        of a chord, whatever is around them. Attempts count on from where they were. The workflow must have ended where
        it failed; for that it is waited up to `timeout` seconds. A workflow is known from the result that sending it
        gave (`cancel`). Raises TaskError, which says why, where nothing has failed, or what failed cannot run again.
        Not in Celery.
        """
        return retry_failed(self, timeout)

    @property
    def graph(self) -> ResultGraph:
        """The graph of its workflow as far as it is known: `str(result.graph)`, `result.graph("dot")`."""
        return build_graph(self, intermediate=True)


def revocation(
    connection: Any, terminate: bool, signal: str | None, wait: bool, timeout: float | None
) -> dict[str, Any]:
    """Return what `revoke` of a result says, in the words of `control.revoke`.

    Raises NotSupportedError where a connection is given.
    """
    if connection is not None:
        raise NotSupportedError("revoke(connection=...): umbel uses the app's own connection; leave it out")
    return {
        "terminate": terminate,
        "signal": signal or "SIGTERM",
        "reply": wait,
        "timeout": 1.0 if timeout is None else timeout,
    }
