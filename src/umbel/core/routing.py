"""Decide where a task is sent: `task_routes`, queues, exchanges and bindings. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.core.queues import Queue, Queues, nearest_name

__all__ = ["ROUTE_OPTIONS", "Route", "Router", "bound_queues", "matches", "prepare_routes"]

ROUTE_OPTIONS = frozenset(
    [
        "queue",
        "exchange",
        "exchange_type",
        "routing_key",
        "priority",
        "serializer",
        "compression",
        "delivery_mode",
        "expires",
        "countdown",
        "eta",
        "time_limit",
        "soft_time_limit",
        "retry",
        "retry_policy",
        "headers",
        "ignore_result",
        "shadow",
        "mandatory",
        "immediate",
        "expiration",
        "link",
        "link_error",
        "add_to_parent",
        "declare",
        "timeout",
        "confirm_timeout",
        "reply_to",
        "correlation_id",
        "task_id",
    ]
)
"""Options that a route may give: those of `apply_async`."""

_DESTINATION = ("queue", "exchange", "exchange_type", "routing_key")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Route:
    """Where one message goes.

    `queues` are the names of those of this app's queues that get it, `exchange` and `routing_key` what an AMQP broker
    would be told
    ("" and the queue's name for a direct queue, as Celery writes them into messages). `queue` is the queue that was
    chosen, `fills` the other options that a router gave: they hold where neither call nor task says
    otherwise.
    """

    queues: tuple[str, ...]
    exchange: str
    routing_key: str
    queue: Queue
    fills: Mapping[str, Any]


class _TableRouter:
    """Routes by exact name, then by glob or compiled pattern in the order given."""

    static = True

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._exact: dict[str, Mapping[str, Any]] = {}
        self._patterns: list[tuple[re.Pattern[str], Mapping[str, Any]]] = []
        for key, value in pairs:
            route = _static_route(key, value)
            if isinstance(key, re.Pattern):
                self._patterns.append((key, route))
            elif any(sign in key for sign in "*?["):
                self._patterns.append((re.compile(fnmatch.translate(key)), route))
            else:
                self._exact.setdefault(key, route)

    def __call__(self, name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Mapping[str, Any] | None:
        found = self._exact.get(name)
        if found is not None:
            return found
        return next((route for pattern, route in self._patterns if pattern.match(name)), None)


def _static_route(key: Any, value: Any) -> Mapping[str, Any]:
    if not isinstance(key, (str, re.Pattern)):
        raise ImproperlyConfigured(
            f"task_routes: {key!r} must be a task name, a glob such as 'feed.*' or a compiled pattern"
        )
    if isinstance(value, (str, Queue)):
        return {"queue": value}
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(
            f"task_routes: the route of {_shown(key)} must be a queue name or a dict, not {value!r}"
        )
    for option in value:
        if option not in ROUTE_OPTIONS:
            near = nearest_name(str(option), ROUTE_OPTIONS)
            raise ImproperlyConfigured(
                f"task_routes: the route of {_shown(key)} has the unknown option {option!r}"
                + (f"; did you mean {near!r}?" if near else "")
            )
    return dict(value)


def _shown(key: Any) -> str:
    return repr(key.pattern if isinstance(key, re.Pattern) else key)


_Router = Callable[..., Any]


def prepare_routes(routes: Any, load: Callable[[str], Any]) -> tuple[_Router, ...]:
    """Return the routers of a `task_routes` value; `load` imports what a dotted path names.

    A dict and a list of pairs are tables. A function is called with `(name, args, kwargs, options,
    task=None)`, an
    object with `route_for_task` through that; a class is made an object first.
    """
    if not routes:
        return ()
    if isinstance(routes, (list, tuple)):
        if all(map(_is_pair, routes)):
            return (_TableRouter(routes),)
        return tuple(_router(item, load) for item in routes)
    return (_router(routes, load),)


def _is_pair(item: Any) -> bool:
    if not (isinstance(item, (list, tuple)) and len(item) == 2):
        return False
    return isinstance(item[0], (str, re.Pattern)) and isinstance(item[1], (str, Mapping, Queue))


def _router(item: Any, load: Callable[[str], Any]) -> _Router:
    if isinstance(item, str):
        return _router(load(item), load)
    if isinstance(item, Mapping):
        return _TableRouter(item.items())
    if isinstance(item, (list, tuple)):
        return _TableRouter([_pair(pair) for pair in ([item] if _is_pair(item) else item)])
    if isinstance(item, type):
        item = item()
    if hasattr(item, "route_for_task"):
        method = item.route_for_task
        return lambda name, args, kwargs, *_options, **_task: method(name, args, kwargs)
    if callable(item):
        router: _Router = item
        return router
    raise ImproperlyConfigured(
        f"task_routes: {item!r} is no router: give a dict, a list of pairs, a function or the dotted path of one"
    )


def _pair(item: Any) -> tuple[Any, Any]:
    if not (isinstance(item, (list, tuple)) and len(item) == 2):
        raise ImproperlyConfigured(f"task_routes: {item!r} must be a pair of a task name or pattern and a route")
    return item[0], item[1]


class Router:
    """Finds the route of every task from `task_routes` and the queues (Celery: `app.amqp.Router`).

    What the call and the task say wins over the routers; the first router that knows the task fills the
    rest; the
    default queue takes what is left. Where all routers are tables, a route is looked up once per task name.
    """

    def __init__(self, routes: Any, queues: Queues, default_queue: Queue | str, load: Callable[[str], Any]) -> None:
        self.routers = prepare_routes(routes, load)
        self.queues = queues
        self.default_queue = default_queue
        self._static = all(getattr(router, "static", False) for router in self.routers)
        self._known: dict[str, Route] = {}

    def resolve(
        self,
        name: str,
        options: Mapping[str, Any] = _NOTHING,
        *,
        args: Any = (),
        kwargs: Any = _NOTHING,
        task: Any = None,
    ) -> Route:
        """Return where a call of the task `name` with these options goes; options that are None do not count.

        Raises `QueueNotFound` for an unknown queue that may not be made. Whether an exchange that no queue of this
        app is bound to leads anywhere is the broker's to say, when it is sent to.
        """
        plain = self._static and not any(options.get(key) is not None for key in _DESTINATION)
        if plain:
            known = self._known.get(name)
            if known is not None:
                return known
        routed = dict(self._first(name, args, kwargs, options, task))
        route = self._destination(routed, options)
        if plain and len(self._known) < _CACHE_SIZE:
            self._known[name] = route
        return route

    def route(
        self,
        options: Mapping[str, Any] | None,
        name: str,
        args: Any = (),
        kwargs: Any = _NOTHING,
        task: Any = None,
    ) -> dict[str, Any]:
        """Return the options of a call, filled in from its route; `queue` becomes a Queue (Celery: same
        name).
        """
        options = options or {}
        routed = dict(self._first(name, args, kwargs, options, task))
        given = {key: value for key, value in options.items() if value is not None}
        merged = {**options, **routed, **given}
        merged["queue"] = self._queue(merged.get("queue"))
        return merged

    def flush(self) -> None:
        """Forget looked-up routes, after the queues have changed."""
        self._known.clear()

    def _first(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Mapping[str, Any]:
        for router in self.routers:
            found = router(name, args, kwargs, options, task=task)
            if found is None:
                continue
            if isinstance(found, Mapping):
                return found
            if isinstance(found, (str, Queue)):
                return {"queue": found}
            raise ImproperlyConfigured(
                f"a router of task_routes returned {found!r} for {name}: return a dict of options, a queue name or None"
            )
        return _NOTHING

    def _queue(self, queue: Any) -> Queue:
        queue = self.default_queue if queue is None else queue
        if isinstance(queue, Queue):
            return self.queues[queue.name] if queue.name in self.queues else self.queues.add(queue)
        return self.queues[queue]

    def _destination(self, routed: dict[str, Any], options: Mapping[str, Any]) -> Route:
        queue, exchange, kind, key = (_chosen(item, options, routed) for item in _DESTINATION)
        chosen = self._queue(queue)
        exchange = getattr(exchange, "name", exchange)
        if (not exchange or not key) and (kind or chosen.exchange.type) == "direct":
            exchange, key = "", chosen.name
        else:
            exchange = exchange or chosen.exchange.name
            key = key or chosen.routing_key
        names = bound_queues(self.queues.values(), exchange, key)
        fills = {item: value for item, value in routed.items() if item not in _DESTINATION and value is not None}
        return Route(names, exchange, key, chosen, MappingProxyType(fills))


def _chosen(item: str, options: Mapping[str, Any], routed: Mapping[str, Any]) -> Any:
    value = options.get(item)
    return routed.get(item) if value is None else value


def bound_queues(queues: Iterable[Queue], exchange: str, routing_key: str) -> tuple[str, ...]:
    """Return the names of the queues that a message gets into, each once, in the order of `queues`.

    The empty exchange leads to the queue whose name is the routing key, whether or not it is among `queues`.
    """
    if not exchange:
        return (routing_key,)
    return tuple(
        dict.fromkeys(
            queue.name
            for queue in queues
            for name, kind, pattern in queue.routes()
            if name == exchange and _leads(kind, pattern, routing_key)
        )
    )


def _leads(kind: str, pattern: str, routing_key: str) -> bool:
    if kind == "fanout":
        return True
    return matches(pattern, routing_key) if kind == "topic" else pattern == routing_key


def matches(pattern: str, routing_key: str) -> bool:
    """Tell whether a topic pattern fits a routing key: `*` is exactly one word, `#` any number of words."""
    words, keys = pattern.split("."), routing_key.split(".") if routing_key else []
    return _topic(tuple(words) if pattern else (), tuple(keys))


@lru_cache(maxsize=4096)
def _topic(words: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    # which prefixes of the key the words so far can have used up
    reached = {0}
    for word in words:
        if word == "#":
            reached = set(range(min(reached), len(keys) + 1))
        else:
            reached = {end + 1 for end in reached if end < len(keys) and word in ("*", keys[end])}
        if not reached:
            return False
    return len(keys) in reached
