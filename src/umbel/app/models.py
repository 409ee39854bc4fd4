"""Pydantic models as task arguments: validated before the run, written as plain values when a call is sent."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any

from umbel.core.optional import load_optional

__all__ = ["dump_models", "validating"]


def validating(
    function: Callable[..., Any],
    app: Any,
    name: str,
    *,
    strict: bool = False,
    context: Mapping[str, Any] | None = None,
    dump_kwargs: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Return the function with its model arguments validated and a returned model written as plain values."""
    base = load_optional("pydantic", extra="pydantic", purpose="a task with pydantic=True").BaseModel
    hints = _hints(function)
    models = {key: model for key, hint in hints.items() if (model := _model(hint, base)) is not None}
    returned = models.pop("return", None)
    extra = {**(context or {}), "celery_app": app, "celery_task_name": name}
    signature = inspect.signature(function)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {key for key, item in signature.parameters.items() if item.kind not in variadic}

    def arguments(args: Any, kwargs: Any) -> inspect.BoundArguments:
        given = signature.bind(*args, **kwargs)
        for key, value in given.arguments.items():
            model = models.get(key)
            if model is not None and key in named and value is not None:
                given.arguments[key] = model.model_validate(value, strict=strict, context=extra)
        return given

    def result(value: Any) -> Any:
        if returned is not None and isinstance(value, returned):
            return value.model_dump(**{"mode": "json", **(dump_kwargs or {})})
        return value

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            given = arguments(args, kwargs)
            return result(await function(*given.args, **given.kwargs))

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = arguments(args, kwargs)
        return result(function(*given.args, **given.kwargs))

    return called


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - names that exist for the type checker only
        return getattr(function, "__annotations__", {})


def _model(hint: Any, base: type) -> Any:
    if typing.get_origin(hint) in (typing.Union, UnionType):
        options = [item for item in typing.get_args(hint) if item is not type(None)]
        hint = options[0] if len(options) == 1 else None
    return hint if isinstance(hint, type) and issubclass(hint, base) else None


def dump_models(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with model instances written as plain values, where those give an equal model again."""
    return tuple(map(_dumped, args)), {key: _dumped(value) for key, value in kwargs.items()}


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None or not hasattr(type(value), "model_validate"):
        return value
    plain = dump(mode="json")
    try:
        same = type(value).model_validate(plain) == value
    except ValueError:
        same = False
    return plain if same else value
