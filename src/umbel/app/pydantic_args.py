"""Tasks with `pydantic=True`: arguments annotated with a model are validated, a returned model is dumped.

Celery: the same option. Only parameters annotated with a model, or with an Optional of one, are looked at.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from umbel.core.optional import load_optional

__all__ = ["ModelCheck", "dump_arguments", "validate_calls"]


class ModelCheck(NamedTuple):
    """The options `pydantic_strict`, `pydantic_context` and `pydantic_dump_kwargs` of one task."""

    strict: bool = False
    context: Mapping[str, Any] | None = None
    dump_kwargs: Mapping[str, Any] | None = None


def validate_calls(
    function: Callable[..., Any],
    *,
    app: Any,
    task_name: str,
    check: ModelCheck = ModelCheck(),  # noqa: B008 - an immutable value
) -> Callable[..., Any]:
    """Return `function` with its arguments validated and its result dumped; `async def` stays `async def`.

    Raises ImproperlyConfigured when pydantic is not installed; a call raises pydantic's ValidationError.
    """
    base = _base_model()
    signature = inspect.signature(function)
    hints = _hints(function)
    models = {
        name: found
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (found := _model_in(hints.get(name, parameter.annotation), base)) is not None
    }
    returned = _model_in(hints.get("return", signature.return_annotation), base)
    dump_kwargs = {"mode": "json", **(check.dump_kwargs or {})}

    def validated(args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        # Read at the call: the app is known only once the task is bound.
        context = {**(check.context or {}), "celery_app": app, "celery_task_name": task_name}
        for name, (model, optional) in models.items():
            if name not in bound.arguments or (optional and bound.arguments[name] is None):
                continue
            bound.arguments[name] = model.model_validate(
                bound.arguments[name], strict=check.strict or None, context=context
            )
        return bound

    def dumped(value: Any) -> Any:
        return value.model_dump(**dump_kwargs) if returned and isinstance(value, returned[0]) else value

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            bound = validated(args, kwargs)
            return dumped(await function(*bound.args, **bound.kwargs))

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = validated(args, kwargs)
        return dumped(function(*bound.args, **bound.kwargs))

    return call


def dump_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str = "json"
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with model instances dumped, where they read back as what they were (Celery 5.7).

    With the serializer pickle they travel as they are.
    """
    if serializer == "pickle":
        return tuple(args), dict(kwargs)
    base = _base_model()
    return (
        tuple(_dump(value, base) for value in args),
        {name: _dump(value, base) for name, value in kwargs.items()},
    )


def _dump(value: Any, base: Any) -> Any:
    if not isinstance(value, base):
        return value
    plain = value.model_dump(mode="json")
    try:
        same = type(value).model_validate(plain) == value
    except ValueError:
        same = False
    return plain if same else value


def _base_model() -> Any:
    return load_optional("pydantic", extra="pydantic", purpose="the task option pydantic=True").BaseModel


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as types; where one cannot be resolved, as they are written."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - a name that exists only for type checkers, or worse
        return dict(getattr(function, "__annotations__", {}))


def _model_in(annotation: Any, base: Any) -> tuple[Any, bool] | None:
    """The model class that an annotation names and whether None will do too."""
    if isinstance(annotation, type) and issubclass(annotation, base):
        return annotation, False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [item for item in typing.get_args(annotation) if item is not type(None)]
        optional = len(members) < len(typing.get_args(annotation))
        if optional and len(members) == 1 and isinstance(members[0], type) and issubclass(members[0], base):
            return members[0], True
    return None
