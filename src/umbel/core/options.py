"""What `apply_async` and `send_task` take: one table of options, and the check that names the nearest one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from umbel.core.errors import EncodeError, ImproperlyConfigured, NotSupportedError
from umbel.core.limits import DEFAULT_LIMITS
from umbel.core.queues import nearest_name

__all__ = ["OPTIONS", "ROUTING", "TASK_DEFAULTS", "SendOptions", "check_name", "check_options"]

#: Options that decide where a message goes and how it is written: the same for many calls.
ROUTING = frozenset(
    {
        "queue", "exchange", "exchange_type", "routing_key", "priority", "serializer", "compression",
        "delivery_mode", "time_limit", "soft_time_limit", "ignore_result",
    }
)  # fmt: skip
#: Options that belong to one call.
_CALL = frozenset(
    {
        "task_id", "countdown", "eta", "expires", "link", "link_error", "shadow", "add_to_parent", "headers",
        "root_id", "parent_id", "group_id", "group_index", "chord", "chain", "reply_to", "retries", "origin",
        "argsrepr", "kwargsrepr", "stamped_headers", "stamps", "correlation_id", "expiration", "retry",
        "retry_policy", "replaced_task_nesting", "result_cls", "route_name", "task_type",
    }
)  # fmt: skip
#: Accepted and without effect, because what they ask for always holds: a message is stored for good, in a queue that
#: exists, before the call returns; or because they say the same as another setting.
_ALWAYS_SO = frozenset({"mandatory", "immediate", "declare", "timeout", "confirm_timeout"})
#: Objects of Celery's own transport; None is their absence.
_REFUSED = {
    "producer": "umbel publishes through app.broker; call without producer=",
    "publisher": "umbel publishes through app.broker; call without publisher=",
    "connection": "umbel publishes through app.broker; to use another broker make a second app with its URL",
    "router": "give task_routes, or queue= for this call",
}
#: What becomes keys and lines of logs: a worker puts a message aside where one of them is too long or unprintable.
_NAMES = frozenset({"task_id", "root_id", "parent_id", "group_id", "shadow", "correlation_id", "reply_to"})

_CALLBACKS = frozenset({"link", "link_error"})

OPTIONS: frozenset[str] = ROUTING | _CALL | _ALWAYS_SO | frozenset(_REFUSED)

#: Options whose default a task may carry as an attribute of the same name.
TASK_DEFAULTS = (
    "queue", "exchange", "exchange_type", "routing_key", "priority", "serializer", "compression", "delivery_mode",
    "expires", "time_limit", "soft_time_limit", "ignore_result",
)  # fmt: skip


class SendOptions(msgspec.Struct, frozen=True, gc=False):
    """The options of a call that many calls share, merged and ready: config < route < task < call."""

    serializer: str = "json"
    compression: str | None = None
    priority: int | None = None
    delivery_mode: int = 2
    timelimit: tuple[float | None, float | None] = (None, None)
    ignore_result: bool = False
    expires: Any = None


def check_options(options: Mapping[str, Any], extra: Iterable[str] = ()) -> None:
    """Raise ImproperlyConfigured for an option that does not exist, NotSupportedError for one that cannot work.

    EncodeError is for an id that no worker would take.
    `extra` are further names that are right: the stamps of this call.
    """
    for name, value in options.items():
        if name in _NAMES:
            check_name(f"{name}=", value)
        elif name in _CALLBACKS:
            _check_callbacks(name, value)
        elif name in _REFUSED:
            if value is not None:
                raise NotSupportedError(f"the option {name}= is not supported: {_REFUSED[name]}")
        elif name not in OPTIONS and name not in extra:
            near = nearest_name(name, OPTIONS)
            raise ImproperlyConfigured(
                f"unknown option {name!r}"
                + (f"; did you mean {near!r}?" if near else ".")
                + " Arguments of the task itself go into args= and kwargs="
            )
    priority = options.get("priority")
    if priority is not None and (
        isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 255
    ):
        raise ImproperlyConfigured(f"priority must be a whole number from 0 to 255, not {priority!r}")
    check_time_limits(options.get("time_limit"), options.get("soft_time_limit"))


def _check_callbacks(name: str, value: Any) -> None:
    for one in (value,) if isinstance(value, (Mapping, str)) or not isinstance(value, Iterable) else value:
        if one is not None and not isinstance(one, Mapping):
            raise TypeError(f"{name}= takes signatures (task.s(...)), not {one!r}")


def check_name(what: str, value: Any) -> None:
    """Raise EncodeError for a name or an id that is too long or cannot be printed."""
    if isinstance(value, str) and (len(value) > DEFAULT_LIMITS.id_length or not value.isprintable()):
        raise EncodeError(
            f"{what} must have at most {DEFAULT_LIMITS.id_length} characters, all of which can be printed; this one "
            f"has {len(value)} and begins with {value[:40]!r}"
        )


def check_time_limits(hard: float | None, soft: float | None) -> None:
    """Raise ValueError when the soft limit would come after the hard one (Celery: the same)."""
    if hard is not None and soft is not None and soft > hard:
        raise ValueError(f"soft_time_limit ({soft:g} s) must not be greater than time_limit ({hard:g} s)")
