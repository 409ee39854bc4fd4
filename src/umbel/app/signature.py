"""A call as a value: task name, arguments and options, which can be kept, sent in a message, and linked to others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

from umbel.app.canvas.publishing import route_of
from umbel.app.current import app_or_default
from umbel.app.ids import new_id
from umbel.app.stamps import StampingVisitor, stamp_links, stamp_task
from umbel.core.errors import NotSupportedError

__all__ = ["Signature", "maybe_signature", "signature", "subtask"]

R = TypeVar("R")
S = TypeVar("S", bound="Signature[Any]")
#: Options that partial application does not change (Celery: the same).
_FIXED = ("group_id", "stamped_headers")


class Signature(dict[str, Any], Generic[R]):
    """The call of one task. As a dict it is what travels: task, args, kwargs, options, subtask_type, immutable.

    Celery: `celery.canvas.Signature`. Arguments given when it is sent go in front of its own; keyword arguments and
    options given then win. An immutable one takes no arguments.
    """

    #: `subtask_type` → class that a dict of that type becomes; see `register_type`.
    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}
    _app: Any
    _type: Any

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type[S]], type[S]]:
        """Return a decorator that makes a subclass the form of dicts with `subtask_type` (default: its name)."""

        def register(subclass: type[S]) -> type[S]:
            Signature.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    def __init__(
        self,
        task: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,  # noqa: A002 - Celery's public name
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **more: Any,
    ) -> None:
        self._app = app
        self._type = type
        if isinstance(task, Mapping):
            super().__init__(copy.deepcopy(dict(task)))
            self.setdefault("args", ())
            self.setdefault("kwargs", {})
            self.setdefault("options", {})
            self.setdefault("subtask_type", None)
            self.setdefault("immutable", False)
            return
        if not isinstance(task, str):
            self._type = task
            task = task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # --- what it holds -----------------------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The app that sends it."""
        if self._app is None:
            self._app = self._known_app() or app_or_default()
        return self._app

    def _known_app(self) -> Any:
        """The app that it was made with; None where nothing says which."""
        return self._type.app if self._app is None and self._type is not None else self._app

    @property
    def type(self) -> Any:
        """The task, where it is registered here; NotRegistered where not."""
        return self._type if self._type is not None else self.app.tasks[self["task"]]

    @property
    def task(self) -> str:
        """Name of the task."""
        name: str = self["task"]
        return name

    name = task

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self["args"]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        kwargs: dict[str, Any] = self["kwargs"]
        return kwargs

    @property
    def options(self) -> dict[str, Any]:
        """Options of `apply_async`."""
        options: dict[str, Any] = self["options"]
        return options

    @property
    def subtask_type(self) -> str | None:
        """None for the call of one task."""
        kind: str | None = self["subtask_type"]
        return kind

    @property
    def immutable(self) -> bool:
        """Whether it takes no further arguments."""
        return bool(self["immutable"])

    @property
    def id(self) -> str | None:
        """The task id, once it is frozen."""
        return self.options.get("task_id")

    @property
    def root_id(self) -> str | None:
        """Id of the task that all began with, if it is set."""
        return self.options.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sends it, if it is set."""
        return self.options.get("parent_id")

    def AsyncResult(self, task_id: str) -> Any:  # noqa: N802 - Celery's public name
        """Return the result of a call by its id."""
        return self.app.AsyncResult(task_id, task_name=self.task)

    # --- sending -----------------------------------------------------------------------------------------------

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it, with these arguments in front of its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it; what is given here is merged as `clone` says. `route_name`: to where that task would go."""
        args, kwargs, merged = self._merge(args, kwargs, options)
        if route_name is not None:
            merged = {**route_of(self.app, {"task": route_name}), **merged}
        task = self._type if self._type is not None else self.app.tasks.get(self["task"])
        if task is None:
            return self.app.send_task(self["task"], args, kwargs, **merged)
        return task.apply_async(args, kwargs, **merged)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and return its result."""
        args, kwargs, merged = self._merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **merged)

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Run the body of the task here, without a message."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, {})
        value: R = self.type(*args, **kwargs)
        return value

    def __invert__(self) -> R:
        value: R = self.apply_async().get()
        return value

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """`delay` for coroutines."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`apply_async` for coroutines."""
        args, kwargs, merged = self._merge(args, kwargs, options)
        return await self.type.aapply_async(args, kwargs, **merged)

    def _merge(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        own = self.options
        fixed = {*_FIXED, *(own.get("stamped_headers") or ())}
        given = {
            key: value for key, value in options.items() if value is not None and not (key in fixed and key in own)
        }
        merged = {**own, **given}
        if self.immutable:
            return tuple(self.args), dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    # --- changing ----------------------------------------------------------------------------------------------

    def clone(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """Return a copy with these arguments in front of its own, and keyword arguments and options that win."""
        new_args, new_kwargs, merged = self._merge(args, kwargs, options)
        return self._copy({"args": new_args, "kwargs": new_kwargs, "options": merged})

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return a copy with whole parts replaced."""
        parts = {"args": args, "kwargs": kwargs, "options": options}
        return self._copy({name: value for name, value in parts.items() if value is not None})

    def _copy(self, changes: Mapping[str, Any]) -> Self:
        twin = self._made({**self, **changes}, self._app, self._type)
        twin["kwargs"] = dict(twin["kwargs"])
        twin["options"] = copy.deepcopy(dict(twin["options"]))
        return twin

    @classmethod
    def _made(cls, parts: Mapping[str, Any], app: Any = None, task: Any = None) -> Self:
        """Make one from its parts as they are, whatever the class' constructor takes."""
        made = cls.__new__(cls)
        dict.__init__(made, parts)
        made._app, made._type = app, task
        return made

    def __copy__(self) -> Self:
        return self._copy({})

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Change options in place; return itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it takes no further arguments."""
        self["immutable"] = immutable

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it its ids now, if it has none yet; return the result of the call to come."""
        options = self.options
        task_id = options["task_id"] = options.get("task_id") or _id or new_id()
        for name, value in (
            ("root_id", root_id), ("parent_id", parent_id), ("group_id", group_id),
            ("chord", chord), ("group_index", group_index),
        ):  # fmt: skip
            if value is not None and options.get(name) is None:
                options[name] = value
        options.setdefault("reply_to", self.app.thread_oid)
        return self.AsyncResult(task_id)

    _freeze = freeze

    def link(self, callback: Any) -> Any:
        """Run `callback` with the result after a success; return it. Linking it twice counts once."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Run `errback` after a failure; return it."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """Like `link_error`, and return itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add a value to an option that is a list, unless it has it; return the value."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add one value or several to an option that is a list."""
        self._list_option(key).extend(list(value) if isinstance(value, (list, tuple)) else [value])

    def _list_option(self, key: str) -> list[Any]:
        present = self.options.get(key)
        if not isinstance(present, list):
            present = [] if present is None else list(present) if isinstance(present, tuple) else [present]
            self.options[key] = present
        return present

    def flatten_links(self) -> list[Any]:
        """Return itself and everything linked to it, at any depth."""
        links = self.options.get("link") or ()
        links = [links] if isinstance(links, Mapping) else links
        return [self, *(one for link in links for one in maybe_signature(link, self._app).flatten_links())]

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Put stamps on it and on what is linked to it: `headers`, and what `visitor` says; return itself.

        Stamps are options that travel as message headers. `append_stamps` keeps the values of a stamp that is there
        in a list.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        stamp_task(self, visitor, append_stamps, headers)
        return self

    def stamp_links(self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp the callbacks and error callbacks only."""
        stamp_links(self, visitor, append_stamps, headers, lambda link: maybe_signature(link, self._app))

    def election(self) -> NoReturn:
        """Not there: workers of umbel do not agree on one of them."""
        raise NotSupportedError("election() needs gossip between workers: send the task once; one worker runs it")

    # --- combining ---------------------------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        return Signature.TYPES["chain"]._of([self], other)  # type: ignore[attr-defined]

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    def __ror__(self, other: Any) -> Any:
        return NotImplemented

    # --- looks -------------------------------------------------------------------------------------------------

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text: `proj.add(1, y=2)`."""
        args, kwargs, _ = self._merge(args, kwargs, {})
        given = [*map(repr, args), *(f"{key}={value!r}" for key, value in sorted(kwargs.items()))]
        return f"{self.task}({', '.join(given)})"

    def __repr__(self) -> str:
        return self.reprcall()

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Any:
        """Return the signature that a dict holds, of the class that its `subtask_type` names."""
        kind = d.get("subtask_type")
        target = Signature.TYPES.get(kind) if kind else None
        if target is not None and target is not cls:
            return target.from_dict(d, app=app)
        return Signature(d, app=app)


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the signature of a task, a task's name, or a dict that holds one (Celery: the same)."""
    if isinstance(varies, Mapping):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a dict as a signature, and a signature as it is (or its clone); anything else unchanged."""
    if isinstance(d, Signature):
        return d.clone() if clone else d
    return Signature.from_dict(d, app=app) if isinstance(d, Mapping) else d
