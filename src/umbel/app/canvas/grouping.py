"""Groups: tasks that run beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from umbel.app.canvas.composite import Composite, as_task_list, briefly
from umbel.app.signature import Signature
from umbel.app.stamps import StampingVisitor, with_stamps
from umbel.core.flow.shape import checked_member, tasks_of

__all__ = ["Stream", "group"]


class Stream(Iterator[Any]):
    """A generator of signatures that has not been read; sending reads it once, and everything else takes a list."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._source = iter(source)
        self._read = False

    def __iter__(self) -> Iterator[Any]:  # noqa: PYI034 - what it gives knows when it has been read
        if self._read:
            raise RuntimeError(
                "the generator of this group has been read already: give it a list to send or look at it again"
            )
        return self._rest()

    def _rest(self) -> Iterator[Any]:
        yield from self._source
        self._read = True

    def __next__(self) -> Any:
        return next(self._source)

    def peek(self) -> Any:
        """Return the first of what is still to be read without taking it; None where nothing is."""
        first = next(self._source, None)
        if first is not None:
            self._source = itertools.chain([first], self._source)
        return first


@Signature.register_type()
class group(Composite):  # noqa: N801 - Celery's public name
    """`group(a, b)`, `group([a, b])`, `group(a.s(i) for i in range(n))`: all run, and the result is a list.

    A generator is read while messages are sent, so that a very large group needs little memory; it can be sent once.
    """

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        given = as_task_list(tasks)
        if isinstance(given, Iterator):
            given = given if isinstance(given, Stream) else Stream(given)
        elif len(given) == 1 and isinstance(given[0], group) and not given[0].options:
            given = given[0].tasks
        self._app, self._type = app, None
        if not isinstance(given, Iterator):
            given = [self._part(task) for task in given]
            for task in given:
                checked_member(task)
        dict.__init__(
            self,
            task="celery.group",
            args=(),
            kwargs={"tasks": given},
            options=options,
            subtask_type="group",
            immutable=False,
        )

    @property
    def tasks(self) -> list[Any]:
        """The members; a generator is read for this."""
        held = self["kwargs"]["tasks"]
        if isinstance(held, Iterator):
            held = self["kwargs"]["tasks"] = list(held)
        tasks: list[Any] = held
        return tasks

    @tasks.setter
    def tasks(self, tasks: Iterable[Any]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def _revive(self) -> None:
        tasks = tasks_of(self)
        self["kwargs"]["tasks"] = tasks if isinstance(tasks, Iterator) else [self._part(task) for task in tasks]

    def _own_parts(self) -> None:
        self.tasks = [task.clone() if isinstance(task, Signature) else task for task in self.tasks]

    def _copy(self, changes: Mapping[str, Any]) -> Any:
        _ = self.tasks
        return super()._copy(changes)

    def _parts(self) -> Iterable[Any]:
        held = self["kwargs"]["tasks"]
        return (held.peek(),) if isinstance(held, Stream) else held

    def _take(self, frozen: Mapping[str, Any]) -> None:
        self.tasks = [self._part(member) for member in tasks_of(frozen)]
        self["options"] = {"task_id": frozen["options"]["task_id"]}

    def _ready(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
        for name in ("link", "link_error"):
            if options.get(name) is not None:
                raise TypeError(f"a group takes no {name}=: use a chord to go on after all of it, or {name} its tasks")
        return super()._ready(args, kwargs, options)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it with these arguments in front of those of every member."""
        return self.apply_async(partial_args, **options)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Let the members wait `start`, `start + step` … `stop` seconds, the rest like the last; return itself."""
        delays = _delays(start, stop, step)
        for task in self.tasks:
            task.set(countdown=next(delays))
        return self

    def link(self, callback: Any) -> Any:
        """Run an immutable copy of `callback` after the first member (Celery: the same)."""
        return self.tasks[0].link(callback.clone().set(immutable=True)) if self.tasks else callback

    def link_error(self, errback: Any) -> Any:
        """Run `errback` for each member that fails; return what was linked to each."""
        # Each has its own: a member that changes it leaves the others as they are.
        return tuple(
            task.link_error(errback.clone() if isinstance(errback, Signature) else errback) for task in self.tasks
        )

    def set_immutable(self, immutable: bool) -> None:
        """Say of every member whether it takes further arguments."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on every member."""
        if visitor is not None:
            headers = with_stamps(headers, visitor.on_group_start(self, **headers))
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)
        return self

    def unrolled(self) -> Any:
        """Return the one member of a group of one, else itself."""
        held = self["kwargs"]["tasks"]
        return held[0] if not isinstance(held, Iterator) and len(held) == 1 else self

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        if isinstance(other, group):
            other = other.unrolled()
            if isinstance(other, group) and not other:
                return self
        return Signature.TYPES["chord"](self, other, app=self._app)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        held = self["kwargs"]["tasks"]
        return True if isinstance(held, Iterator) else bool(held)

    def __repr__(self) -> str:
        held = self["kwargs"]["tasks"]
        if isinstance(held, Iterator):
            return "group(<generator>)"
        shown = [*map(repr, held[:1]), *map(briefly, held[1:])]
        return f"group([{', '.join(shown)}])" if held else "group(<empty>)"


def _delays(start: float, stop: float | None, step: float) -> Iterator[float]:
    """Celery: `celery.utils.functional.fxrange(start, stop, step, repeatlast=True)`; a stop of 0 is none."""
    if stop and start > stop:
        raise ValueError(f"skew: stop ({stop:g}) must not be less than start ({start:g})")
    delay = float(start)
    while True:
        yield delay
        if not stop or delay + step <= stop:
            delay += step
