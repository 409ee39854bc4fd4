"""Chains: tasks that run one after the other, each with the result of the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel.app.canvas.composite import Composite, as_task_list, briefly
from umbel.app.signature import Signature, maybe_signature
from umbel.app.stamps import StampingVisitor, with_stamps
from umbel.core.errors import NotSupportedError
from umbel.core.flow.combining import spread_chain
from umbel.core.flow.shape import Kind, kind_of, list_of, tasks_of
from umbel.core.flow.shape import is_empty as is_nothing

__all__ = ["_chain", "chain"]


@Signature.register_type("chain")
class _chain(Composite):  # noqa: N801 - Celery's public name
    """What `a | b` and `chain(a, b)` are."""

    def __init__(self, *tasks: Any, app: Any = None, use_link: bool | None = None, **options: Any) -> None:
        if use_link:
            raise NotSupportedError("use_link=True is not supported: a chain travels in its messages")
        self._app, self._type = app, None
        dict.__init__(
            self,
            task="celery.chain",
            args=(),
            kwargs={"tasks": list(as_task_list(tasks)) if tasks else []},
            options=options,
            subtask_type="chain",
            immutable=False,
        )

    @property
    def tasks(self) -> list[Any]:
        """The steps."""
        tasks: list[Any] = self["kwargs"]["tasks"]
        return tasks

    @tasks.setter
    def tasks(self, tasks: Iterable[Any]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def _revive(self) -> None:
        self.tasks = [self._part(task) for task in list_of(tasks_of(self))]

    def _own_parts(self) -> None:
        self.tasks = [task.clone() if isinstance(task, Signature) else task for task in self.tasks]

    def _parts(self) -> Iterable[Any]:
        return self.tasks

    def _take(self, frozen: Mapping[str, Any]) -> None:
        steps = list_of(tasks_of(frozen)) if kind_of(frozen) is Kind.CHAIN else [frozen]
        self.tasks = [self._part(step) for step in steps]
        task_id = frozen["options"].get("task_id")
        self["options"] = {"task_id": task_id} if task_id else {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it with these arguments for its first task; None where it is empty."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def set_immutable(self, immutable: bool) -> None:
        """Say of its first task whether it takes the arguments of the call."""
        self["immutable"] = immutable

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on every step, and on what is linked."""
        self.stamp_links(visitor, append_stamps, **headers)
        if visitor is not None:
            headers = with_stamps(headers, visitor.on_chain_start(self, **headers))
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)
        return self

    # --- combining ---------------------------------------------------------------------------------------------

    @classmethod
    def _of(cls, steps: list[Any], *following: Any, app: Any = None) -> Any:
        """Return a chain of steps and what follows them, put together as `|` does."""
        steps = list(steps)
        for other in following:
            _append(steps, other)
        return _chain(steps, app=app)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        steps = [self._part(step) for step in spread_chain(self)] if self.options else self.tasks
        return _chain._of(steps, other, app=self._app)

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        first, *rest = self.tasks
        return " | ".join([repr(first), *(briefly(task) for task in rest)])


class chain(_chain):  # noqa: N801 - Celery's public name
    """`chain(a, b, c)`, `chain([a, b])`: the same as `a | b | c`, each step getting the result of the one before it.

    A chain of one step is sent like that step. Options are for: `task_id`, `link` the last step, `link_error` every
    step, all others the first.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """Return the tasks put together as `|` does, unless it is one task or has options."""
        if not tasks or options.keys() - {"app"} or (len(tasks) == 1 and isinstance(tasks[0], Mapping)):
            return super().__new__(cls)
        steps: list[Any] = []
        for task in as_task_list(tasks):
            if not isinstance(task, Signature):
                raise TypeError(f"a chain takes signatures (task.s(...)), not {type(task).__name__}")
            _append(steps, task, drop_empty=True)
        return _chain(steps, app=options.get("app"))


#: Chords inside the bodies of chords in which a chain nests what follows them, as Celery does; what comes then stands
#: beside them, which means the same and has no end.
_NESTED = 20


def _depth(chord: Any) -> int:
    depth = 0
    while chord is not None and kind_of(chord) is Kind.CHORD:
        depth += 1
        body = chord.body
        chord = body.tasks[-1] if body is not None and kind_of(body) is Kind.CHAIN and body.tasks else body
    return depth


def _append(steps: list[Any], other: Any, *, drop_empty: bool = False) -> None:
    """Put one more signature behind the steps of a chain, in place."""
    kind = kind_of(other)
    if kind is Kind.CHAIN:
        for each in spread_chain(other) if other.options else list_of(tasks_of(other)):
            _append(steps, maybe_signature(each, other._app), drop_empty=drop_empty)
        return
    if kind is Kind.GROUP:
        other = other.unrolled()
        kind = kind_of(other)
    while steps and kind_of(steps[-1]) is Kind.GROUP and is_nothing(steps[-1]):
        steps.pop()
    if not steps or (drop_empty and is_nothing(other)):
        steps.extend([] if steps else [other])
        return
    last = steps[-1]
    before = kind_of(last)
    if before is Kind.CHORD and last.body is not None and _depth(last) < _NESTED:
        steps[-1] = last.with_next(other)
    elif before is Kind.GROUP and kind is not Kind.GROUP:
        steps[-1] = last | other
    else:
        steps.append(other)
