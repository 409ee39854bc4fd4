"""What chain, group and chord have in common: they are frozen, sent and run here as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from umbel.app.canvas.publishing import route_of
from umbel.app.canvas.results import results_of
from umbel.app.canvas.running_here import run_here
from umbel.app.canvas.sending import send
from umbel.app.ids import new_id
from umbel.app.signature import Signature, maybe_signature
from umbel.core.flow.freezing import freeze
from umbel.core.flow.shape import Sig, list_of, with_tail
from umbel.core.flow.shape import merged as both
from umbel.core.options import check_options

__all__ = ["Composite", "as_task_list", "briefly"]


def as_task_list(tasks: tuple[Any, ...]) -> Any:
    """Return what was given to chain or group (several, or one list or generator) as a list or generator."""
    if len(tasks) != 1:
        return list(tasks)
    (only,) = tasks
    if isinstance(only, Mapping):
        return [only]
    if isinstance(only, (list, tuple, Iterator)):
        return only if isinstance(only, Iterator) else list(only)
    try:
        return iter(only)
    except TypeError:
        raise TypeError(f"{type(only).__name__!r} is neither a signature nor several of them") from None


def briefly(sig: Any) -> str:
    """Return a signature as text, with its task's name without the module: what stands after the first in a row."""
    text = repr(sig)
    if sig.get("subtask_type") is not None:
        return text
    opening = "[" if text.startswith("[") else ""
    name, paren, rest = text.removeprefix("[").partition("(")
    return opening + name.rpartition(".")[2] + paren + rest


class Composite(Signature[Any], ABC):
    """A signature that stands for several tasks."""

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Any:
        """Return the workflow that a dict holds, with the parts of the dict as signatures."""
        whole = {"args": (), "kwargs": {}, "options": {}, "immutable": False, **d}
        made = cls._made({**whole, "kwargs": dict(whole["kwargs"]), "options": dict(whole["options"])}, app)
        made._revive()
        return made

    tasks: Any

    @abstractmethod
    def _revive(self) -> None:
        """Make signatures of the parts that are plain dicts."""

    def _part(self, part: Any) -> Any:
        return maybe_signature(part, self._app)

    def _copy(self, changes: Mapping[str, Any]) -> Any:
        twin = super()._copy(changes)
        twin._own_parts()
        return twin

    @abstractmethod
    def _own_parts(self) -> None:
        """Take copies of the parts, so that changing them leaves those of the original as they are."""

    def _known_app(self) -> Any:
        if self._app is not None:
            return self._app
        found = (part._known_app() for part in self._parts() if isinstance(part, Signature))
        return next((app for app in found if app is not None), None)

    @abstractmethod
    def _parts(self) -> Iterable[Any]:
        """The parts that can tell which app it is; of a generator the first."""

    def _ready(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> tuple[Sig, tuple[Any, ...], dict[str, Any]]:
        """Return what is to be frozen, with these options, and the arguments for its first tasks."""
        own = dict(self.options)
        for name, value in options.items():
            if name in ("link", "link_error"):
                own[name] = both(list_of(own.get(name)), list_of(value))
            elif value is not None:
                own[name] = value
        given = () if self.immutable else (*(args or ()), *self.args)
        return {**self, "args": (), "options": own}, given, {} if self.immutable else dict(kwargs or {})

    # --- sending -----------------------------------------------------------------------------------------------

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        *,
        add_to_parent: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> Any:
        """Send the first tasks; return the result of the whole. `route_name`: to where that task would go.

        `args` go in front of the arguments of the first tasks. `progress` shows on standard error how far it is;
        None: where that is a terminal and it takes long. Raises NotSupportedError for a chord where no results are
        kept, and what sending a task raises.
        """
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, add_to_parent=add_to_parent, **options)
        app.ensure_finalized()
        if route_name is not None:
            options = {**route_of(app, {"task": route_name}), **options}
        check_options(options, options.get("stamped_headers") or ())
        sig, given, named = self._ready(args, kwargs, options)
        return send(app, sig, given, named, add_to_parent=add_to_parent, progress=progress)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        propagate: bool = True,
        add_to_parent: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run all of it here, one task after the other, and return its result (Celery: the same).

        `throw` raises the exception of a failed task (default: `task_eager_propagates`). A chord whose header failed
        raises the header's exception; with `propagate=False` its body gets that exception as a value.
        """
        del progress
        sig, given, named = self._ready(args, kwargs, options)
        return run_here(self.app, sig, given, named, throw=throw, propagate=propagate, add_to_parent=add_to_parent)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`apply_async` for coroutines: what it does runs in a thread."""
        import asyncio

        return await asyncio.to_thread(self.apply_async, args, kwargs, **options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it (Celery: the same for all workflows, though a task's signature runs here)."""
        return self.apply_async(args, **options)

    # --- changing ----------------------------------------------------------------------------------------------

    def clone(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return a copy of all of it; the arguments are for the first tasks, in front of their own."""
        _, _, merged = self._merge((), {}, options)
        twin = self._copy({"options": merged})
        if self.immutable:
            return twin
        twin["args"] = (*(args or ()), *self.args)
        if kwargs:
            twin._give(kwargs)
        return twin

    partial = clone

    def _give(self, kwargs: Mapping[str, Any]) -> None:
        """Give keyword arguments to the first tasks, in place."""
        tasks = self.tasks
        count = 1 if self["subtask_type"] == "chain" else len(tasks)
        tasks[:count] = [task.clone((), kwargs) for task in tasks[:count]]

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give every part its ids now; return the result of the whole. Calling it later sends what was frozen."""
        app = self.app  # while its parts can tell
        sig, _, _ = self._ready((), {}, {} if self.id else {"task_id": _id})
        given = {"group_id": group_id, "group_index": group_index, "chord": chord}
        place = {name: value for name, value in given.items() if value is not None}
        handed = {"root_id": root_id, "parent_id": parent_id}
        frozen = freeze(sig, new_id)
        if place:
            frozen = with_tail(frozen, lambda leaf: {**leaf, "options": {**leaf["options"], **place}})
        self._take(frozen)
        self.options.update((name, value) for name, value in handed.items() if value is not None)
        return results_of(app, frozen)

    _freeze = freeze

    @abstractmethod
    def _take(self, frozen: Mapping[str, Any]) -> None:
        """Become what was frozen, in place."""

    def election(self) -> NoReturn:
        """Not there (see `Signature.election`)."""
        super().election()
