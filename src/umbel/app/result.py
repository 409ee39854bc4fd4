"""Results as users import them: AsyncResult, EagerResult, `result_from_tuple`, guards against blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from umbel.app.allow_join import allow_join_result, assert_will_not_block, denied_join_result
from umbel.app.async_result import AsyncResult
from umbel.app.group_result import GroupResult, result_from_tuple
from umbel.app.lifecycle import Lifecycle
from umbel.app.result_set import ResultSet
from umbel.core import states
from umbel.core.errors import TaskRevokedError

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "Lifecycle",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]

R = TypeVar("R")

_LIFECYCLES = {
    states.SUCCESS: Lifecycle.SUCCEEDED,
    states.FAILURE: Lifecycle.FAILED,
    states.REVOKED: Lifecycle.REVOKED,
    states.RETRY: Lifecycle.RETRYING,
}


class EagerResult(AsyncResult[R], Generic[R]):
    """The result of a task that ran in the caller (`apply`, `task_always_eager`). Celery: the same."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's public name
        ret_value: R | BaseException | None,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        # No app and no store: everything is here.
        self.app = None
        self.id = id
        self.parent = None
        self.task_name = name
        self.ignored = False
        self._backend = None
        self._value_or_error = ret_value
        self._trail: list[AsyncResult[Any]] = []
        done = datetime.fromtimestamp(time.time(), UTC).isoformat()
        self._meta: dict[str, Any] | None = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "date_done": done if state in states.READY_STATES else None,
            "name": name,
        }

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"

    def __copy__(self) -> EagerResult[R]:
        return EagerResult(self.id, self._value_or_error, self.state, self.traceback, self.task_name)

    def __reduce__(self) -> tuple[Any, ...]:
        return EagerResult, (self.id, self._value_or_error, self.state, self.traceback, self.task_name)

    @property
    def state(self) -> str:
        """The state in which the call ended."""
        return str(self._read()["status"])

    status = state

    @property
    def lifecycle(self) -> Lifecycle:
        """Where the task is: always at an end."""
        return _LIFECYCLES.get(self.state, Lifecycle.UNKNOWN)

    @property
    def result(self) -> Any:
        """The value, or the exception itself."""
        return self._value_or_error

    info = result

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that this one called or sent."""
        return self._trail

    def ready(self) -> bool:
        """True: the call is over."""
        return True

    def exists(self) -> bool:
        """True: the result is here."""
        return True

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Return the value; raise the exception of a failed call, or return it without `propagate`.

        Nothing is waited for, so only `callback` and `disable_sync_subtasks` have something to do.
        """
        del timeout, interval, no_ack, follow_parents, on_message, on_interval
        if disable_sync_subtasks:
            assert_will_not_block()
        return self._value(propagate, callback)

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: ASYNC109
        """`get` for coroutines."""
        del timeout
        return self._value(propagate, None)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the exception of a failed or revoked call; return its value otherwise."""
        value = self._value_or_error
        if self.state in states.PROPAGATE_STATES and propagate:
            raise value if isinstance(value, BaseException) else RuntimeError(str(value))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[AsyncResult[R]], Any] | None = None,
        weak: bool = False,
    ) -> EagerResult[R]:
        """Call `callback(self)` or `on_error(self)`, now."""
        del weak
        if self.successful():
            callback(self)
        elif on_error is not None:
            on_error(self)
        return self

    def forget(self) -> None:
        """Nothing is stored, so nothing is deleted."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Mark the result as revoked (Celery 5.7: the same)."""
        del args, kwargs
        self._value_or_error = TaskRevokedError("revoked")
        assert self._meta is not None
        self._meta = {**self._meta, "status": states.REVOKED, "result": self._value_or_error}
