"""Many results as one: asked about together, and waited for together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, NoReturn, TypeVar, overload

from umbel.app.acting import Revocable
from umbel.app.allow_join import assert_will_not_block
from umbel.app.arrivals import arrivals, arrivals_async
from umbel.app.async_result import AsyncResult
from umbel.app.current import app_or_default
from umbel.app.waiting import Ticket, waiter_of
from umbel.core import states
from umbel.core.errors import NotSupportedError
from umbel.core.errors import TimeoutError as ResultTimeout
from umbel.core.message import Record

__all__ = ["ResultIds", "ResultSet"]

R = TypeVar("R")
OnMessage = Callable[[dict[str, Any]], Any]
#: States in one question to the store.
_CHUNK = 1000
#: Nothing more will be known of a task whose result is ignored.
_ENDED = frozenset({*states.READY_STATES, states.IGNORED})


class ResultIds(Sequence[AsyncResult[R]]):
    """The results of very many tasks of which only the ids are kept; each result is made when it is looked at."""

    def __init__(self, ids: Sequence[str], app: Any, task_name: str | None = None) -> None:
        self._ids = ids
        self._app = app
        self._task_name = task_name

    @overload
    def __getitem__(self, index: int) -> AsyncResult[R]: ...

    @overload
    def __getitem__(self, index: slice) -> ResultIds[R]: ...

    def __getitem__(self, index: int | slice) -> AsyncResult[R] | ResultIds[R]:
        if isinstance(index, slice):
            return ResultIds(self._ids[index], self._app, self._task_name)
        return AsyncResult(self._ids[index], None, self._task_name, self._app)

    def __len__(self) -> int:
        return len(self._ids)


class ResultSet(Revocable, Generic[R]):
    """A collection of results, each once. Celery: `celery.result.ResultSet`.

    Members may be sets themselves. Questions about all members cost one question to the store for each thousand.
    """

    def __init__(self, results: Iterable[Any] | None, app: Any = None, ready_barrier: Any = None) -> None:
        if ready_barrier is not None:
            raise NotSupportedError("ResultSet(ready_barrier=...) is not supported: use then(), get() or `async for`")
        self._app = app
        self.results: Any = results if isinstance(results, (list, ResultIds)) else list(results or ())

    # --- what it holds -----------------------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The app whose store is asked."""
        if self._app is None:
            self._app = self.results[0].app if self.results and self.results[0].app is not None else app_or_default()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        """The store that is asked."""
        return self.app.store if not self.results else self.results[0].backend

    supports_native_join = True

    def add(self, result: Any) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results = [*self.results, result]

    def remove(self, result: Any) -> None:
        """Take a result (or the one with this id) out; KeyError where it is not there."""
        if result not in self.results:
            raise KeyError(result)
        self.results = [one for one in self.results if one != result]

    def discard(self, result: Any) -> None:
        """Take a result out if it is there."""
        self.results = [one for one in self.results if one != result]

    def update(self, results: Iterable[Any]) -> None:
        """Add each of the results that is not there yet."""
        known = set(self.results)
        fresh = [one for one in dict.fromkeys(results) if one not in known]
        self.results = [*self.results, *fresh]

    def clear(self) -> None:
        """Take all out."""
        self.results = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return list(other.results) == list(self.results) if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(str(one.id) for one in self.results[:5])
        return f"<{type(self).__name__}: [{shown}{', …' if len(self.results) > 5 else ''}]>"

    def leaves(self) -> Iterator[AsyncResult[Any]]:
        """Yield the single results, also those of sets within the set."""
        for one in self.results:
            if isinstance(one, ResultSet):
                yield from one.leaves()
            else:
                yield one

    # --- asking ------------------------------------------------------------------------------------------------

    def _states(self) -> list[str]:
        """The states of all single results, read together."""
        found: list[str] = []
        batch: list[AsyncResult[Any]] = []
        for one in self.leaves():
            batch.append(one)
            if len(batch) == _CHUNK:
                found += _read(batch)
                batch = []
        return found + _read(batch)

    def ready(self) -> bool:
        """Tell whether all have ended, in whatever way."""
        return all(state in _ENDED for state in self._states())

    def waiting(self) -> bool:
        """Tell whether any has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Tell whether all ended well."""
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        """Tell whether any failed."""
        return any(state == states.FAILURE for state in self._states())

    def completed_count(self) -> int:
        """Count those that ended well; a group within counts as one (Celery: the same)."""
        found = iter(self._states())
        sizes = (sum(1 for _ in one.leaves()) if isinstance(one, ResultSet) else 1 for one in self.results)
        return sum(set(islice(found, size)) <= {states.SUCCESS} for size in sizes)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first that failed."""
        self._states()
        for one in self.leaves():
            one.maybe_throw(propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    # --- waiting -----------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:
        """Wait for all and return their values in order.

        With `propagate` the first failure that is seen is raised at once. With `callback` each value goes to
        `callback(id, value)` instead and the list is empty. `timeout` is for all together (seconds; TimeoutError).
        `on_message(meta)` gets every state that is seen; `on_interval()` is called each `interval` seconds. `no_ack` is
        Celery's and has no meaning where results are no messages.
        """
        del no_ack
        if disable_sync_subtasks:
            assert_will_not_block()
        self._wait(timeout, propagate, interval if on_interval is not None else None, on_message, on_interval)
        values: list[R] = []
        for one in self.results:
            value: Any
            if isinstance(one, ResultSet):
                value = one.get(timeout=0, propagate=propagate, disable_sync_subtasks=False)
            else:
                value = one.get(timeout=0, propagate=propagate, follow_parents=False, disable_sync_subtasks=False)
            if callback is None:
                values.append(value)
            else:
                callback(one.id, value)
        return values

    join = get
    join_native = get

    def _wait(
        self,
        timeout: float | None,
        propagate: bool,
        interval: float | None,
        on_message: OnMessage | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        for found in self._arriving(timeout, interval, on_message, on_interval):
            for one, meta in found:
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    one.maybe_throw()

    def _arriving(
        self,
        timeout: float | None,
        interval: float | None,
        on_message: OnMessage | None,
        on_interval: Callable[[], Any] | None,
    ) -> Iterator[list[tuple[AsyncResult[Any], dict[str, Any]]]]:
        """Yield results with their metas in batches, as they end."""
        known, missing = _split(self.leaves())
        if known:
            yield known
        if not missing:
            return
        deadline = None if timeout is None else time.monotonic() + timeout

        def pause() -> float | None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return left if interval is None else interval if left is None else min(left, interval)

        on_record = None if on_message is None else _telling(on_message, missing)
        batches = arrivals(waiter_of(self.backend), missing, pause, on_record)
        try:
            for batch in batches:
                if batch:
                    yield _kept(batch, missing)
                elif deadline is not None and time.monotonic() >= deadline:
                    self._time_is_over(len(missing))
                elif on_interval is not None:
                    on_interval()
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _time_is_over(self, left: int) -> NoReturn:
        raise ResultTimeout(f"{left} of {sum(1 for _ in self.leaves())} results were not there in time")

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, meta) of each single result as it ends; TimeoutError after `timeout` seconds."""
        del no_ack
        slice_ = interval if on_interval is not None else None
        for found in self._arriving(timeout, slice_, on_message, on_interval):
            for one, meta in found:
                yield one.id, meta

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[R]:  # noqa: ASYNC109
        """`get` for coroutines: waits without blocking the event loop."""
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[R] = []
        for one in self.results:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            values.append(await one.aget(left, propagate))
        return values

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.aget().__await__()

    async def __aiter__(self) -> AsyncIterator[AsyncResult[R]]:
        known, missing = _split(self.leaves())
        for one, _ in known:
            yield one
        if missing:
            async for batch in arrivals_async(waiter_of(self.backend), list(missing)):
                for one, _ in _kept(batch, missing):
                    yield one

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> ResultSet[R]:
        """Call `callback(self)` once all have ended well, `on_error(self)` once all have ended and some have not.

        The set is kept until then, with `weak` as well.
        """
        del weak
        _, missing = _split(self.leaves())

        def ended(ticket: Ticket) -> None:
            _kept(list(ticket.records.values()), missing)
            if ticket.error is None and self.successful():
                callback(self)
            elif on_error is not None:
                on_error(self)

        if missing:
            waiter_of(self.backend).call(list(missing), ended)
        else:
            ended(Ticket((), lambda: None))
        return self

    # --- acting ------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Delete all stored results."""
        for one in self.results:
            one.forget()

    def _task_ids(self) -> list[str]:
        return [one.id for one in self.leaves()]


_Known = list[tuple[AsyncResult[Any], dict[str, Any]]]
_IGNORED: dict[str, Any] = {"status": states.IGNORED, "result": None, "traceback": None, "children": []}


def _split(leaves: Iterable[AsyncResult[Any]]) -> tuple[_Known, dict[str, list[AsyncResult[Any]]]]:
    """Tell apart what is known to have ended, and by id what has to be waited for."""
    known: _Known = []
    missing: dict[str, list[AsyncResult[Any]]] = {}
    for one in leaves:
        if one.ignored:
            known.append((one, _IGNORED))
        elif one._meta is not None:
            known.append((one, one._meta))
        else:
            missing.setdefault(one.id, []).append(one)
    return known, missing


def _kept(batch: Iterable[Record], missing: dict[str, list[AsyncResult[Any]]]) -> _Known:
    """Give the results their records and take them out of what is missing."""
    found: _Known = []
    for record in batch:
        for one in missing.pop(record.id, ()):
            found.append((one, one._keep(record)))
    return found


def _telling(on_message: OnMessage, missing: dict[str, list[AsyncResult[Any]]]) -> Callable[[Record], None]:
    def tell(record: Record) -> None:
        waiting = missing.get(record.id)
        if waiting:
            on_message(waiting[0]._keep(record))

    return tell


def _read(batch: list[AsyncResult[Any]]) -> list[str]:
    """Return the states of some single results with one question to the store."""
    _, missing = _split(batch)
    unready: dict[str, str] = {}
    if missing:
        first = next(iter(missing.values()))[0]
        found = first.backend.get(list(missing), time.time())
        unready = {task_id: record.state for task_id, record in found.items()}
        for task_id, record in found.items():
            for one in missing[task_id]:
                one._keep(record)
    return [
        states.IGNORED if one.ignored else one._meta["status"] if one._meta else unready.get(one.id, states.PENDING)
        for one in batch
    ]
