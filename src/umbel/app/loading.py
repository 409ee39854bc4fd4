"""Import what a program names: classes by path, the modules with tasks, and what packages call `tasks`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

from umbel.app.signals import import_modules
from umbel.core.errors import ImproperlyConfigured

__all__ = ["discover", "import_default_modules", "load_symbol"]


def load_symbol(path: Any) -> Any:
    """Return what `"package.module:name"` or `"package.module.name"` is; anything but text is returned as it is."""
    if not isinstance(path, str):
        return path
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    if not module or not name:
        raise ImproperlyConfigured(f"{path!r} names nothing that can be imported: write package.module:name")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImproperlyConfigured(f"the module {module!r} has no {name!r} (from {path!r})") from None
    return found


def import_default_modules(app: Any) -> None:
    """Import `imports` and `include`, and let autodiscovery do its work; errors of the modules are raised."""
    import_modules.send(sender=app)
    for name in dict.fromkeys((*(app.conf.imports or ()), *(app.conf.include or ()))):
        importlib.import_module(name)


def discover(packages: Iterable[str] | Callable[[], Iterable[str]] | None, related_name: str | None) -> list[Any]:
    """Import `related_name` of each package (the package itself for None); return the modules that exist."""
    names = packages() if callable(packages) else packages
    return [module for name in names or () if (module := _related(name, related_name)) is not None]


def _related(package: str, related_name: str | None) -> Any:
    found = importlib.import_module(package)
    if related_name is None:
        return found
    full = f"{package}.{related_name}"
    if not hasattr(found, "__path__") or importlib.util.find_spec(full) is None:
        return None
    return importlib.import_module(full)


def import_quietly(module: str) -> None:
    """Import the module that should define a task, if there is one; whether it did shows in the registry."""
    if module != "__main__" and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
