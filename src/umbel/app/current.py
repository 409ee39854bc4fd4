"""Which app is meant where none is named: the default app, the current one of a thread, and proxies for both."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel.app import request as requests

if TYPE_CHECKING:
    from umbel.app.app import Umbel

__all__ = ["Proxy", "app_or_default", "current_app", "current_task", "get_current_app", "set_current", "set_default"]


class _Apps:
    def __init__(self) -> None:
        self.default: Umbel | None = None
        self.local = threading.local()
        #: Makes the app that exists where a program made none; set by `umbel.app.app`.
        self.make: Callable[[], Umbel] | None = None
        self.alive: weakref.WeakSet[Umbel] = weakref.WeakSet()


apps = _Apps()


def set_default(app: Umbel | None) -> None:
    """Make `app` what threads without a current app get."""
    apps.default = app


def set_current(app: Umbel | None) -> None:
    """Make `app` the current one of this thread; the first one is the default of all threads too."""
    apps.local.app = app
    if apps.default is None:
        apps.default = app


def get_current_app() -> Umbel:
    """Return this thread's app, else the default app, else a new app with default settings."""
    found: Umbel | None = getattr(apps.local, "app", None) or apps.default
    if found is None:
        if apps.make is None:
            import umbel.app.app  # noqa: F401 - sets `make`
        assert apps.make is not None
        found = apps.default = apps.make()
    return found


def app_or_default(app: Umbel | None = None) -> Umbel:
    """Return `app`, or the current one (Celery: `celery.app.app_or_default`)."""
    return get_current_app() if app is None else app


class Proxy:
    """Stands for an object that is looked up each time (Celery: `celery.local.Proxy`)."""

    __slots__ = ("__weakref__", "_lookup")

    _lookup: Callable[[], Any]

    def __init__(self, lookup: Callable[[], Any]) -> None:
        object.__setattr__(self, "_lookup", lookup)

    def _get_current_object(self) -> Any:
        return self._lookup()

    @property
    def __class__(self) -> Any:
        return self._lookup().__class__

    @__class__.setter
    def __class__(self, value: Any) -> None:
        self._lookup().__class__ = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lookup(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._lookup(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._lookup(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return self._lookup()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._lookup())

    def __eq__(self, other: object) -> bool:
        return bool(self._lookup() == other)

    def __hash__(self) -> int:
        return hash(self._lookup())

    def __repr__(self) -> str:
        return repr(self._lookup())

    def __str__(self) -> str:
        return str(self._lookup())

    def __dir__(self) -> list[str]:
        return dir(self._lookup())

    def __reduce__(self) -> Any:
        return self._lookup().__reduce__()


#: The current app, whichever that is at the moment of use.
current_app: Any = Proxy(get_current_app)
#: The task that runs here; false outside tasks.
current_task: Any = Proxy(requests.current_task)


def _after_fork() -> None:
    for app in list(apps.alive):
        app.on_after_fork.send(sender=app)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
