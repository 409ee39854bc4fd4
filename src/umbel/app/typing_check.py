"""Check at the call whether arguments fit a task's function, so that a mistake shows where it was made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["ArgumentCheck"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ArgumentCheck:
    """The parameters of one function. `fewest` and `most` say how many positional arguments alone are right."""

    __slots__ = ("_name", "_signature", "fewest", "most")

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        positional = [item for item in parameters if item.kind in _POSITIONAL]
        self.fewest = sum(item.default is inspect.Parameter.empty for item in positional)
        self.most: float = len(positional)
        if any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters):
            self.most = float("inf")
        if any(
            item.kind is inspect.Parameter.KEYWORD_ONLY and item.default is inspect.Parameter.empty
            for item in parameters
        ):
            self.most = -1  # positional arguments alone are never enough

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, worded as Python words it, when the function cannot be called so."""
        if not kwargs and self.fewest <= len(args) <= self.most:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return which parameter gets which argument."""
        return self._signature.bind(*args, **kwargs)
