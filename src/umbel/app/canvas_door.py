"""From a workflow to its messages, as the end of a task sends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel.core.flow.freezing import freeze
from umbel.core.flow.starting import Opened, start
from umbel.core.flow.storing import unpack
from umbel.core.flow.stubs import stub_key
from umbel.core.message import Message

__all__ = ["load", "messages"]


def load(app: Any, stub: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the piece that a stub stands for, and the stub of what follows it."""
    key, now = stub_key(stub), time.time()
    return unpack(app.store.take_plans([key], now, now + (app.conf.result_expires or 0.0))[key])


def messages(
    app: Any,
    sig: Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    ids: Callable[[], str],
) -> tuple[list[Message], dict[str, int]]:
    """Return what is to be sent first of a workflow, and the sizes of the chord headers that this opens."""
    found: list[Message] = []
    sizes: dict[str, int] = {}
    for call in start(freeze(sig, ids), args, kwargs, options):
        if isinstance(call, Opened):
            sizes[call.group] = call.size
        else:
            found.append(app.client.build(app.tasks.get(call.task, call.task), call.args, call.kwargs, call.options))
    return found, sizes
