"""The later steps of a chain as they stand in a message: nobody has to read them in order to send them on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from umbel.core import json_types
from umbel.core.flow.shape import Sig

__all__ = ["LateSteps", "Step", "read_step", "read_steps"]

#: A signature, or the JSON of one.
Step = Sig | msgspec.Raw


class LateSteps:
    """The steps that follow a task, reversed as they travel; each is the JSON of a signature."""

    __slots__ = ("steps",)

    def __init__(self, steps: Sequence[msgspec.Raw]) -> None:
        self.steps = steps

    def __bool__(self) -> bool:
        return bool(self.steps)

    def read(self) -> list[dict[str, Any]]:
        """Return the signatures."""
        return read_steps(self.steps)


def read_step(step: Step) -> dict[str, Any]:
    """Return a signature, whether it has been read before or not."""
    found: Any = json_types.loads(bytes(step)) if type(step) is msgspec.Raw else step
    return found  # type: ignore[no-any-return]


def read_steps(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the signatures of several steps."""
    return [read_step(step) for step in steps]
