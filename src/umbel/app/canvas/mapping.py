"""Many calls of one task in one message: chunks, map and starmap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from umbel.app.canvas.composite import Composite
from umbel.app.canvas.grouping import Stream, group
from umbel.app.signature import Signature, maybe_signature
from umbel.core.errors import NotSupportedError
from umbel.core.flow.shape import expand, tasks_of

__all__ = ["chunks", "xmap", "xstarmap"]


class _Mapped(Signature[Any]):
    """One task, and the items that it is called with one after the other."""

    _task_name: str

    def __init__(self, task: Any, it: Iterable[Any], app: Any = None, **options: Any) -> None:
        inner = maybe_signature(task, app) if isinstance(task, Mapping) else task.s()
        self._app, self._type = app if app is not None else inner._app, None
        dict.__init__(
            self,
            task=self._task_name,
            args=(),
            kwargs={"task": inner, "it": list(it)},
            options=options,
            subtask_type=None,
            immutable=True,
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Any:
        """Return the signature that a dict holds."""
        return cls._made({**d, "kwargs": dict(d["kwargs"]), "options": dict(d.get("options") or {})}, app)

    def _known_app(self) -> Any:
        return self._app if self._app is not None else maybe_signature(self["kwargs"]["task"])._known_app()

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it to where the task itself would go."""
        return super().apply_async(args, kwargs, route_name or maybe_signature(self.kwargs["task"]).task, **options)

    def _copy(self, changes: Mapping[str, Any]) -> Any:
        return type(self)._made({**dict(self), "options": dict(self.options), **changes}, self._app)


@Signature.register_type()
class xmap(_Mapped):  # noqa: N801 - Celery's public name
    """`task.map([1, 2])`: one message that calls `task(1)`, then `task(2)`, and gives the list of their results."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        return f"[{maybe_signature(self.kwargs['task']).task}(x) for x in {self.kwargs['it']!r}]"


@Signature.register_type()
class xstarmap(_Mapped):  # noqa: N801 - Celery's public name
    """`task.starmap([(1, 2), (3, 4)])`: the same with several arguments in each call."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        return f"[{maybe_signature(self.kwargs['task']).task}(*x) for x in {self.kwargs['it']!r}]"


@Signature.register_type()
class chunks(Composite):  # noqa: N801 - Celery's public name
    """`task.chunks(items, n)`: a group of `starmap` calls with `n` items each. The items may come from a generator."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, app: Any = None, **options: Any) -> None:
        inner = maybe_signature(task, app) if isinstance(task, Mapping) else task.s()
        if n < 1:
            raise ValueError(f"chunks of {n} items cannot be made: n must be at least 1")
        self._app, self._type = app if app is not None else inner._app, None
        dict.__init__(
            self,
            task="celery.chunks",
            args=(),
            kwargs={"task": inner, "it": Stream(it) if isinstance(it, Iterator) else list(it), "n": n},
            options=options,
            subtask_type=None,
            immutable=True,
        )

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send the calls at once."""
        return cls(task, it, n, app=app)()

    def group(self) -> group:
        """Return the group that this stands for."""
        expanded = expand(self)
        return group(
            (xstarmap.from_dict(each, self._app) for each in tasks_of(expanded)), app=self._app, **expanded["options"]
        )

    def _revive(self) -> None:
        self["kwargs"]["task"] = self._part(self["kwargs"]["task"])

    def _own_parts(self) -> None:
        self["kwargs"]["task"] = maybe_signature(self["kwargs"]["task"], self._app).clone()

    def _parts(self) -> Iterable[Any]:
        return (maybe_signature(self["kwargs"]["task"]),)

    def _take(self, frozen: Mapping[str, Any]) -> None:
        raise NotSupportedError("chunks cannot be frozen: freeze the group that .group() gives")

    def __repr__(self) -> str:
        shown = {"task": self.kwargs["task"], "it": self.kwargs["it"], "n": self.kwargs["n"]}
        return f"celery.chunks({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
