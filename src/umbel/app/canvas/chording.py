"""Chords: a group, and a task that gets the list of its results."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from umbel.app.canvas.composite import Composite, as_task_list, briefly
from umbel.app.canvas.grouping import Stream, group
from umbel.app.signature import Signature
from umbel.app.stamps import StampingVisitor, with_stamps
from umbel.core.errors import CPendingDeprecationWarning
from umbel.core.flow.combining import with_errbacks, with_id
from umbel.core.flow.shape import Kind, chain_of, checked_member, kind_of, list_of, tasks_of
from umbel.core.flow.shape import header_group as header_group_of

__all__ = ["_chord", "chord"]


@Signature.register_type()
class chord(Composite):  # noqa: N801 - Celery's public name
    """`chord(header)(body)`, `chord(header, body)`, `group | body`: the body runs once, with the list of the results of
    the header in the header's order. A member that fails fails the body with ChordError.

    Options are for: `countdown`, `eta` the header; `task_id`, `link`, `link_error` the body; all others for both.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        self._app, self._type = app, None
        dict.__init__(
            self,
            task=task,
            args=tuple(args),
            kwargs={"kwargs": dict(kwargs or {}), "header": _header(header), "body": body},
            options=options,
            subtask_type="chord",
            immutable=False,
        )

    @property
    def body(self) -> Any:
        """What runs with the results; None where it is still to be given."""
        return self["kwargs"]["body"]

    @body.setter
    def body(self, body: Any) -> None:
        self["kwargs"]["body"] = body

    @property
    def tasks(self) -> list[Any]:
        """The members of the header; a generator is read for this."""
        held = self["kwargs"]["header"]
        if isinstance(held, Mapping):
            return list_of(tasks_of(held)) if kind_of(held) is Kind.GROUP else [held]
        if isinstance(held, Iterator):
            held = self["kwargs"]["header"] = list(held)
        tasks: list[Any] = held
        return tasks

    @tasks.setter
    def tasks(self, tasks: Any) -> None:
        self["kwargs"]["header"] = list(tasks)

    def header_group(self) -> Any:
        """Return the header as a group."""
        held = self["kwargs"]["header"]
        return held if isinstance(held, Signature) else group(self.tasks, app=self._app)

    def _revive(self) -> None:
        kwargs = self["kwargs"]
        kwargs["body"] = self._part(kwargs.get("body"))
        kwargs.setdefault("kwargs", {})
        header = kwargs.get("header")
        if isinstance(header, Mapping):
            kwargs["header"] = self._part(header)
        elif not isinstance(header, Iterator):
            kwargs["header"] = [self._part(task) for task in header or ()]

    def _own_parts(self) -> None:
        kwargs = self["kwargs"]
        if isinstance(kwargs["body"], Signature):
            kwargs["body"] = kwargs["body"].clone()
        if isinstance(kwargs["header"], Signature):
            kwargs["header"] = kwargs["header"].clone()
        else:
            kwargs["header"] = [task.clone() if isinstance(task, Signature) else task for task in self.tasks]

    def _copy(self, changes: Mapping[str, Any]) -> Any:
        _ = self.tasks
        return super()._copy(changes)

    def _parts(self) -> Iterable[Any]:
        held = self["kwargs"]["header"]
        return (self.body, *((held.peek(),) if isinstance(held, Stream) else self.tasks))

    def _ready(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
        options = dict(options)
        body = kwargs.get("body") if kwargs else None
        sig, given, named = super()._ready(args, {k: v for k, v in (kwargs or {}).items() if k != "body"}, options)
        body = sig["kwargs"]["body"] if body is None else body
        if body is None:
            raise TypeError("a chord needs a body: chord(header)(body)")
        checked_member(body)
        task_id = options.get("task_id")
        own, whole = dict(sig["options"]), {**sig["kwargs"], "body": body}
        if task_id is not None:
            # Of a call it is the id of the body; among the chord's own options that of the header.
            own.pop("task_id")
            own.update({"task_id": self.options["task_id"]} if "task_id" in self.options else {})
            whole["body"] = with_id(body, task_id)
        errbacks = [{**each, "immutable": True} for each in list_of(own.get("link_error"))]
        if errbacks and self.app.conf.task_allow_error_cb_on_chord_header:
            whole["header"] = [with_errbacks(task, errbacks) for task in self.tasks]
        return {**sig, "kwargs": whole, "options": own}, given, named

    def _take(self, frozen: Mapping[str, Any]) -> None:
        first, *rest = list_of(tasks_of(frozen)) if kind_of(frozen) is Kind.CHAIN else [frozen]
        kwargs = first["kwargs"]
        self["kwargs"] = {
            "kwargs": {},
            "header": self._part(header_group_of(first)),
            "body": self._part(chain_of([kwargs["body"], *rest])),
        }
        self["options"] = {"task_id": header_group_of(first)["options"]["task_id"]}

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if one is given."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        *,
        interval: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Send the header; return the result of the body (see `Composite.apply_async`).

        `interval` and `max_retries` say how Celery asks whether the header is complete; here its last member says so.
        """
        del interval, max_retries
        return super().apply_async(args, kwargs, route_name, **options)

    def link(self, callback: Any) -> Any:
        """Run `callback` with the result of the body; return it."""
        if self.body is None:
            raise TypeError("the chord has no body to link to: chord(header, body)")
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Run `errback` when the body fails, and with `task_allow_error_cb_on_chord_header` when a member does."""
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in self.tasks:
                task.link_error(errback.clone().set(immutable=True) if isinstance(errback, Signature) else errback)
        else:
            warnings.warn(
                "the error callback of a chord is linked to its body only; set task_allow_error_cb_on_chord_header to "
                "link it to the tasks of the header too",
                CPendingDeprecationWarning,
                stacklevel=2,
            )
        if self.body is not None:
            self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Say of the members of the header whether they take further arguments."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on every member of the header, and on the body."""
        within = headers
        if visitor is not None:
            within = with_stamps(headers, visitor.on_chord_header_start(self, **headers))
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **within)
        if visitor is not None:
            visitor.on_chord_header_end(self, **within)
        if self.body is None:
            return self
        if visitor is not None:
            headers = with_stamps(headers, visitor.on_chord_body(self, **headers))
        self.body.stamp(visitor, append_stamps, **headers)
        return self

    def with_next(self, other: Any) -> chord:
        """Return a chord whose body is followed by `other`; the header is shared."""
        whole = {**self["kwargs"], "body": self.body | other}
        return type(self)._made({**self, "kwargs": whole, "options": dict(self.options)}, self._app)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        if isinstance(other, group):
            other = other.unrolled()
        kind = kind_of(other)
        if kind in (Kind.CHAIN, Kind.GROUP) or self.body is None:
            following = other.tasks if kind is Kind.CHAIN and not other.options else [other]
            return Signature.TYPES["chain"]([self, *following], app=self._app)
        return self.with_next(other)

    def __length_hint__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        if self.body is None:
            return f"<{type(self).__name__} without body: {self.tasks!r}>"
        steps = self.body.tasks if kind_of(self.body) is Kind.CHAIN and self.body.tasks else [self.body]
        shown = [repr(steps[0]), *(briefly(step) for step in steps[1:])]
        name, _, rest = shown[0].partition("(")
        header = f"[{', '.join(briefly(task) for task in self.tasks)}]"
        first = f"{name}({header}{', ' if rest != ')' else ''}{rest}"
        return f"%{first}" if len(steps) == 1 else f"%({' | '.join([first, *shown[1:]])})"


_chord = chord


def _header(header: Any) -> Any:
    if isinstance(header, Mapping) and kind_of(header) is Kind.GROUP:
        tasks = tasks_of(header)
        if header.get("options"):
            return header
        return tasks if isinstance(tasks, Iterator) else list(tasks)
    given = as_task_list((header,))
    if isinstance(given, Iterator):
        return given if isinstance(given, Stream) else Stream(given)
    return [checked_member(task) for task in given]
