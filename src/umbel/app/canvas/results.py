"""The results of a workflow that has been frozen: the same objects that reading its tuples would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel.app.client import Plan
from umbel.app.group_result import GroupResult
from umbel.app.result import AsyncResult
from umbel.app.result_set import ResultIds
from umbel.core.flow.shape import Kind, Sig, body_of, header_group, kind_of, list_of, tasks_of

__all__ = ["Collected", "results_of"]

#: Members of a group of which only the ids are kept.
_MANY = 1000
#: Options that make the result of one call different from those of others.
_OWN_RESULT = frozenset({"result_cls", "ignore_result"})


def results_of(app: Any, sig: Sig, parent: Any = None) -> Any:
    """Return the result of a frozen signature: of a chain its last step's, of a chord its body's, of a group all.

    `parent` is the result of what runs before it. None for an empty chain.
    """
    kind = kind_of(sig)
    if kind is Kind.CHAIN:
        for step in list_of(tasks_of(sig)):
            parent = results_of(app, step, parent)
        return parent
    if kind is Kind.CHORD:
        group, body = results_of(app, header_group(sig), parent), body_of(sig)
        return group if body is None else results_of(app, body, group)
    if kind is Kind.GROUP:
        found = Collected(app)
        found.extend(tasks_of(sig))
        return found.group(sig["options"].get("task_id"), parent)
    return _single(app, sig, parent)


def _single(app: Any, sig: Sig, parent: Any) -> Any:
    options = sig["options"]
    cls = options.get("result_cls") or AsyncResult
    result: Any = cls(options["task_id"], None, sig["task"], app, parent)
    if _is_ignored(app, sig):
        result.ignored = True
    return result


def _is_ignored(app: Any, sig: Sig) -> bool:
    given = sig["options"].get("ignore_result")
    if given is None:
        task = app.tasks.get(sig["task"])
        given = app.conf.task_ignore_result if task is None else task.ignore_result
    return bool(given)


class Collected:
    """The results of members as they are sent; of very many plain ones only the ids are kept."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ids: list[str] = []
        self._name: str | None = None
        self._results: list[Any] | None = None

    def extend(self, members: Iterable[Sig]) -> None:
        """Take frozen members."""
        for member in members:
            self.add(member)

    def add(self, member: Mapping[str, Any]) -> None:
        """Take one frozen member."""
        if self._results is None:
            name = member["task"]
            plain = kind_of(member) is Kind.TASK and "result_cls" not in member["options"]
            if (
                plain
                and (self._name is None or name == self._name)
                and (self._ids or not _is_ignored(self._app, member))
            ):
                self._name = name
                self._ids.append(member["options"]["task_id"])
                return
            self._results = self._made()
        self._results.append(results_of(self._app, member))

    def add_plain(self, plan: Plan, ids: list[str]) -> None:
        """Take calls of one task that were sent with one plan."""
        if self._results is None and (not self._ids or self._name == plan.name) and not plan.options.ignore_result:
            self._name = plan.name
            self._ids += ids
            return
        if self._results is None:
            self._results = self._made()
        found = [AsyncResult[Any](each, None, plan.name, self._app) for each in ids]
        for result in found:
            result.ignored = plan.options.ignore_result
        self._results += found

    def _made(self) -> list[Any]:
        return [AsyncResult(each, None, self._name, self._app) for each in self._ids]

    def group(self, group_id: str | None, parent: Any = None) -> Any:
        """Return the result of the group."""
        results: Any = self._results
        if results is None:
            results = self._made() if len(self._ids) <= _MANY else ResultIds(self._ids, self._app, self._name)
        if len(results) == 1 and isinstance(results[0], GroupResult):
            # Celery: a group of nothing but another group is that group.
            return results[0]
        return GroupResult(group_id, results, parent, self._app)
