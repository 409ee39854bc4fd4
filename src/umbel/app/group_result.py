"""The result of a group, which can be kept and found again by its id; and results from the tuples that say them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from umbel.app.acting import InWorkflow
from umbel.app.async_result import AsyncResult
from umbel.app.current import app_or_default
from umbel.app.lineage import tuple_of
from umbel.app.result_set import ResultSet
from umbel.app.stored_result import NO_RESULTS, pair_of
from umbel.core.errors import DecodeError, ImproperlyConfigured

__all__ = ["GroupResult", "GroupsOfApp", "result_from_tuple"]

R = TypeVar("R")


class GroupResult(InWorkflow, ResultSet[R], Generic[R]):
    """The results of the tasks of a group, in the order of the group. Celery: `celery.result.GroupResult`.

    It is true where it has an id or members. `parent` is the result of what came before the group.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's public name
        results: Iterable[Any] | None = None,
        parent: Any = None,
        app: Any = None,
    ) -> None:
        super().__init__(results, app)
        self.id = id
        self.parent = parent
        self.ignored = False

    def __bool__(self) -> bool:
        return bool(self.id or len(self.results))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return bool(other.id == self.id and list(other.results) == list(self.results))
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        shown = ", ".join(str(one.id) for one in self.results[:5])
        return f"<{type(self).__name__}: {self.id} [{shown}{', …' if len(self.results) > 5 else ''}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, list(self.results), self.parent, self._app)

    @property
    def task_id(self) -> str | None:
        """Another name of `id`."""
        return self.id

    @property
    def children(self) -> Any:
        """The results of the members."""
        return self.results

    def as_tuple(self) -> Any:
        """Return ((id, parent), [member, …]), which `result_from_tuple` reads."""
        return tuple_of(self)

    def as_list(self) -> list[str]:
        """Return the ids of all single results."""
        return [one.id for one in self.leaves()]

    # --- keeping it --------------------------------------------------------------------------------------------

    def save(self, backend: Any = None) -> GroupResult[R]:
        """Keep the ids of the group in the store as long as results are kept, so that `restore` finds them."""
        if self.id is None:
            raise ValueError("a group without an id cannot be kept")
        now = time.time()
        expires = self.app.conf.result_expires
        data = msgspec.json.encode({"result": self.as_tuple()})
        _store(self.app, backend).save_group(self.id, data, now, now + expires if expires else 0.0)
        return self

    def delete(self, backend: Any = None) -> None:
        """Let `restore` find the group no more; the results of its tasks stay."""
        _store(self.app, backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult[Any] | None:  # noqa: A002
        """Return the group that `save` kept under this id, here or in Celery; None where there is none."""
        app = app_or_default(app)
        data = _store(app, backend).saved_group(id, time.time())
        if data is None:
            return None
        try:
            found = result_from_tuple(msgspec.json.decode(data)["result"], app)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as exc:
            raise DecodeError(f"what is kept of the group {id} cannot be read: {exc}") from exc
        return found if isinstance(found, GroupResult) else cls(id, [found], app=app)


class GroupsOfApp:
    """What `app.GroupResult` is: `GroupResult` for one app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's public name
        results: Iterable[Any] | None = None,
        parent: Any = None,
    ) -> GroupResult[Any]:
        """Return the result of a group, from the results of its tasks."""
        return GroupResult(id, results, parent, self._app)

    def restore(self, id: str, backend: Any = None) -> GroupResult[Any] | None:  # noqa: A002
        """Return the group that `save` kept under this id; None where there is none."""
        return GroupResult.restore(id, backend, self._app)


def result_from_tuple(value: Any, app: Any = None) -> Any:
    """Return the result that `as_tuple` described; lists in place of tuples (from JSON) will do."""
    line: list[tuple[Any, Any]] = []
    while value is not None and not isinstance(value, (AsyncResult, ResultSet)):
        (result_id, above), members = pair_of(value)
        line.append((result_id, members))
        value = above
    found: Any = value
    for result_id, members in reversed(line):
        if members is None:
            found = AsyncResult(result_id, None, None, app, found)
        else:
            found = GroupResult(result_id, [result_from_tuple(one, app) for one in members], found, app)
    return found


def _store(app: Any, backend: Any) -> Any:
    store = backend if backend is not None else app.store
    if store is None:
        raise ImproperlyConfigured(NO_RESULTS)
    return store
