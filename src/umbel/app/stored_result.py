"""What is known of one task by its id: identity and parents, and what the store keeps about it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

from umbel.app.current import app_or_default
from umbel.app.lifecycle import Lifecycle, lifecycle_of
from umbel.app.lineage import tuple_of
from umbel.app.records import decode_meta, result_of
from umbel.core import states
from umbel.core.errors import ImproperlyConfigured
from umbel.core.message import Record
from umbel.engine.seam import Store

__all__ = ["NO_RESULTS", "ResultTuple", "StoredResult", "pair_of"]

#: Said where results are disabled and one is asked for.
NO_RESULTS = "this app keeps no results: set result_backend (unset, results are where the broker is)"

R = TypeVar("R")
ResultTuple = tuple[tuple[str, Any], Any]
_PENDING: dict[str, Any] = {"status": states.PENDING, "result": None, "traceback": None, "children": []}


class StoredResult(Generic[R]):
    """The part of a result that only reads: state, value, times, children. A final state is read once."""

    app: Any

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's public name
        backend: Store | None = None,
        task_name: str | None = None,
        app: Any = None,
        parent: StoredResult[Any] | None = None,
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult needs the id of a task, not None")
        self.app = app_or_default(app)
        self.id = id
        self.parent = parent
        self.task_name = task_name
        #: True for a task that was sent with `ignore_result`: waiting for it gives None at once.
        self.ignored = False
        self._backend = backend
        self._meta: dict[str, Any] | None = None

    # --- identity -------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __str__(self) -> str:
        return self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredResult):
            return bool(other.id == self.id)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __copy__(self) -> Self:
        return type(self)(self.id, self._backend, self.task_name, self.app, self.parent)

    @property
    def task_id(self) -> str:
        """Another name of `id`."""
        return self.id

    @property
    def backend(self) -> Store:
        """The store that is asked; ImproperlyConfigured where results are disabled."""
        store: Store | None = self._backend if self._backend is not None else self.app.store
        if store is None:
            raise ImproperlyConfigured(NO_RESULTS)
        return store

    def as_tuple(self) -> ResultTuple:
        """Return ((id, parent), None), which `result_from_tuple` reads."""
        found: ResultTuple = tuple_of(self)
        return found

    def as_list(self) -> list[str]:
        """Return the ids of this result and its parents."""
        ids = [self.id]
        above: Any = self.parent  # of a group, if that came before
        while isinstance(above, StoredResult):
            ids.append(above.id)
            above = above.parent
        return ids if above is None else [*ids, *above.as_list()]

    # --- what is stored -------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        """The stored meta; a final one is read once."""
        if self._meta is None:
            record = self.backend.get([self.id], time.time()).get(self.id)
            if record is None:
                return _PENDING
            return self._keep(record)
        return self._meta

    def _keep(self, record: Record) -> dict[str, Any]:
        meta = decode_meta(self.app.conf, record.meta)
        if meta["status"] in states.READY_STATES:
            self._meta = meta
        return meta

    @property
    def state(self) -> str:
        """The task's state; PENDING also means unknown, EXPIRED that the id is older than results are kept."""
        state: str = self._read()["status"]
        if state == states.PENDING and self._is_expired():
            return states.EXPIRED
        return state

    status = state

    def _is_expired(self) -> bool:
        # A later step of a chain has no message of its own until the steps before it are done.
        return self.parent is None and self.lifecycle is Lifecycle.EXPIRED

    @property
    def lifecycle(self) -> Lifecycle:
        """Where the task is, more finely than `state` can say."""
        return lifecycle_of(self.app, self.id, time.time())

    @property
    def result(self) -> Any:
        """The value, or the exception of a failed task; what `update_state` stored while it runs."""
        return result_of(self._read())

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task as text."""
        return self._read().get("traceback")

    @property
    def children(self) -> list[Any]:
        """Results of the tasks and groups that this one sent (`Task.trail`)."""
        return [self._child(item) for item in self._read().get("children") or ()]

    def _child(self, item: Any) -> Any:
        (result_id, parent), members = item
        above = self._child(pair_of(parent)) if parent else None
        if members is not None:
            return self.app.GroupResult(result_id, [self._child(pair_of(one)) for one in members], above)
        return type(self)(result_id, self._backend, None, self.app, above)

    @property
    def date_done(self) -> datetime | None:
        """When the task ended (aware); None before."""
        text = self._read().get("date_done")
        return datetime.fromisoformat(text) if isinstance(text, str) else text

    @property
    def name(self) -> str | None:
        """Name of the task; needs `result_extended`."""
        return self._read().get("name")

    @property
    def args(self) -> list[Any] | None:
        """Its arguments; needs `result_extended`."""
        return self._read().get("args")

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """Its keyword arguments; needs `result_extended`."""
        return self._read().get("kwargs")

    @property
    def worker(self) -> str | None:
        """Name of the worker that ran it; needs `result_extended`."""
        return self._read().get("worker")

    @property
    def retries(self) -> int | None:
        """How often it was retried; needs `result_extended`."""
        return self._read().get("retries")

    @property
    def queue(self) -> str | None:
        """The queue that it came through; needs `result_extended`."""
        return self._read().get("queue")

    def ready(self) -> bool:
        """Tell whether the task has ended, in whatever way."""
        return self._read()["status"] in states.READY_STATES

    def successful(self) -> bool:
        """Tell whether it ended well."""
        return bool(self._read()["status"] == states.SUCCESS)

    def failed(self) -> bool:
        """Tell whether it failed."""
        return bool(self._read()["status"] == states.FAILURE)

    def exists(self) -> bool:
        """Tell whether the store knows the id (Celery 5.7)."""
        return self._meta is not None or self.id in self.backend.get([self.id], time.time())


def pair_of(described: Any) -> Any:
    """What `as_tuple` gives is ((id, parent), members), or only its inner pair where there are no members."""
    return described if isinstance(described[0], (list, tuple)) else (described, None)
