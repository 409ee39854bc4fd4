"""The result of a task that was sent: its state, its value, and waiting for it in threads and event loops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NoReturn, TypeVar, cast

from umbel.app import exceptions_io
from umbel.app.acting import InWorkflow, revocation
from umbel.app.allow_join import assert_will_not_block
from umbel.app.records import result_of
from umbel.app.result_graph import ResultGraph, build_graph, collect, iterdeps, leaf_of
from umbel.app.stored_result import StoredResult
from umbel.app.waiting import Ticket, waiter_of
from umbel.core import states
from umbel.core.errors import TaskError
from umbel.core.errors import TimeoutError as ResultTimeout

__all__ = ["AsyncResult"]

R = TypeVar("R")
#: How many results are asked for in one call.
_AT_ONCE = 1000


class AsyncResult(InWorkflow, StoredResult[R]):
    """Asks about one task by its id, and waits for it. Celery: `celery.result.AsyncResult`.

    `backend` is the store to ask (default: that of `app`). `await result` and `aget` wait without blocking
    the event loop. Waiting inside a task is refused unless `disable_sync_subtasks=False`.
    """

    #: Waits of `then(weak=True)`, given up with this object.
    _callback_tickets: list[Ticket] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), self.id, self.task_name, self.app, self.parent, self.ignored)

    def __del__(self) -> None:
        for ticket in self._callback_tickets or ():
            waiter_of(self.backend).discard(ticket)

    # --- waiting --------------------------------------------------------------------------------------------

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
        """Wait until the task has ended and return its value; raise its exception, or return it.

        `propagate` decides about the exception. `timeout` seconds (None: as long as it takes) end in
        TimeoutError, a store that stays unreachable in OperationalError, an id older than results are kept in
        TaskError.
        `callback(id, value)` gets the value, `on_message(meta)` every state that is seen; `on_interval()` is
        called each `interval` seconds.
        `no_ack` is Celery's and has no meaning where results are no messages.
        """
        del no_ack
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        if follow_parents and propagate and self.parent is not None:
            self._throw_from_parents()
        if self._meta is None:
            self._wait(deadline, interval, on_message, on_interval)
        elif on_message is not None:
            on_message(self._meta)
        return self._value(propagate, callback)

    wait = get

    def _wait(
        self,
        deadline: float | None,
        interval: float,
        on_message: Callable[[dict[str, Any]], Any] | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        waiter = waiter_of(self.backend)
        on_record = None if on_message is None else lambda record: on_message(self._keep(record))
        first = True
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # After the first pause it is worth asking whether there is anything to wait for.
            slice_ = interval if on_interval is not None else (1.0 if first else None)
            limit = left if slice_ is None else slice_ if left is None else min(left, slice_)
            record = waiter.wait([self.id], limit, on_record=on_record).get(self.id)
            if record is not None:
                self._keep(record)
                return
            if left is not None and left <= (limit or 0.0):
                raise self._too_late("get")
            if first and self._is_expired():
                raise TaskError(f"the result of task {self.id} has expired (setting result_expires)")
            first = False
            if on_interval is not None:
                on_interval()

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: ASYNC109
        """`get` for coroutines: waits without blocking the event loop, whichever loop that is."""
        if self.ignored:
            return cast(R, None)
        if self._meta is None:
            record = (await waiter_of(self.backend).wait_async([self.id], timeout)).get(self.id)
            if record is None:
                raise self._too_late("aget")
            self._keep(record)
        return self._value(propagate, None)

    def _too_late(self, call: str) -> ResultTimeout:
        return ResultTimeout(
            f"task {self.id} has not ended within the time that {call}() was given; `lifecycle` of its result "
            "tells where it is, `umbel status` which workers run"
        )

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def _value(self, propagate: bool, callback: Callable[[str, Any], Any] | None) -> R:
        if propagate:
            self.maybe_throw(callback=callback)
        elif callback is not None:
            callback(self.id, self.result)
        return cast(R, self.result)

    def _throw_from_parents(self) -> None:
        line: list[AsyncResult[Any]] = []
        node = self.parent
        while isinstance(node, AsyncResult):
            line.append(node)
            node = node.parent
        unknown = [one for one in line if one._meta is None]
        for first in range(0, len(unknown), _AT_ONCE):
            batch = unknown[first : first + _AT_ONCE]
            found = self.backend.get([one.id for one in batch], time.time())
            for one in batch:
                if one.id in found:
                    one._keep(found[one.id])
        for one in line:
            if one._meta is not None:
                one.maybe_throw()

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the exception of a failed or revoked task; return its value otherwise."""
        meta = self._read()
        value = result_of(meta)
        if meta["status"] in states.PROPAGATE_STATES and propagate:
            raise self._exception(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the given exception here, as a generator's `throw` does (Celery: of its promise)."""
        error = args[0] if args else self.result
        del kwargs
        raise error if isinstance(error, BaseException) else TaskError(str(error))

    def _exception(self, value: Any, traceback: str | None) -> Exception:
        exc = exceptions_io.from_dict(value)
        if self.app.conf.task_remote_tracebacks:
            return exceptions_io.with_traceback(exc, traceback)
        return exc

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[AsyncResult[R]], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R]:
        """Call `callback(self)` when the task has succeeded, `on_error(self)` when it has not.

        The call comes from the thread that waits for results. With `weak` it is given up with this object.
        """
        lock = threading.Lock()
        # Without weak the ticket keeps this object alive, with it only the copy that the callback gets.
        subject = self.__copy__() if weak else self

        def ended(ticket: Ticket) -> None:
            with lock:
                if self_tickets and ticket in self_tickets:
                    self_tickets.remove(ticket)
            for record in ticket.records.values():
                subject._keep(record)
            if ticket.error is None and subject.successful():
                callback(subject)
            elif on_error is not None:
                on_error(subject)

        self_tickets: list[Ticket] = []
        if weak:
            self_tickets = self._callback_tickets = self._callback_tickets or self_tickets
        ticket = waiter_of(self.backend).call([self.id], ended)
        if weak and not ticket.done:
            with lock:
                self_tickets.append(ticket)
        return self

    def _task_ids(self) -> str:
        return self.id

    # --- acting on it ---------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Delete the stored result, and those of all parents."""
        self._meta = None
        self.backend.forget(self.as_list())

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Revoke every task with one of these stamps, not only this one (Celery: the same)."""
        said = revocation(connection, terminate, signal, wait, timeout)
        return self.app.control.revoke_by_stamped_headers(headers, **said)

    # --- the workflow around it -----------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield (parent, result) for it and everything that it sent; IncompleteStream at one that has not ended.

        With `intermediate` what has not ended is yielded too, without what it may send yet.
        """
        return iterdeps(self, intermediate)

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield (result, value) for it and everything that it sent, waiting for each. `kwargs` are those of `get`."""
        return collect(self, intermediate, **kwargs)

    def get_leaf(self) -> Any:
        """Wait for everything that it sent; return the value of the last of them."""
        return leaf_of(self)

    def build_graph(self, intermediate: bool = False, formatter: Callable[[Any], str] | None = None) -> ResultGraph:
        """Return the graph of what came before it and what it sent; `formatter(result)` gives the texts."""
        return build_graph(self, intermediate, formatter)

    supports_native_join = True


def _unpickle(
    cls: type[AsyncResult[Any]], task_id: str, task_name: str | None, app: Any, parent: Any, ignored: bool
) -> AsyncResult[Any]:
    result = cls(task_id, None, task_name, app, parent)
    result.ignored = ignored
    return result
