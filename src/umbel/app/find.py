"""Find the app that `-A` names, as Celery does: `module`, `module:attribute`, or a package."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from umbel.app.app import Umbel
from umbel.app.task import Task
from umbel.core.errors import ImproperlyConfigured
from umbel.core.queues import nearest_name

__all__ = ["AppNotFound", "find_app", "import_modules"]

#: Where an app is looked for in a module, in this order.
_ATTRIBUTES = ("app", "celery", "umbel")
#: Modules of a package in which it is looked for next.
_SUBMODULES = ("celery", "umbel")


class AppNotFound(ImproperlyConfigured):
    """No app is where it was looked for; the message says what is there instead."""


def find_app(name: str) -> Umbel:
    """Return the app that `name` means; the working directory is looked in first.

    A module's app is its attribute `app`, `celery` or `umbel`, else that of its modules `celery` or `umbel` if it is
    a package, else any app in it. Raises AppNotFound, also for an error inside the module, which is its cause then.
    """
    folder = os.getcwd()  # noqa: PTH109 - entries of sys.path are text
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, colon, attribute = name.partition(":")
    _check_name(name, module_name)
    if colon:
        return _attribute(_import(module_name), attribute, name)
    parent, _, last = name.rpartition(".")
    if parent and not _exists(name):
        module = _import(parent)
        if hasattr(module, last):
            return _attribute(module, last, name)
    return _search(_import(name), name)


def import_modules(app: Umbel) -> None:
    """Import the modules of `include`, `imports` and autodiscovery; AppNotFound where one cannot be."""
    try:
        app.import_default_modules()
    except ImproperlyConfigured:
        raise
    except Exception as error:
        raise _import_failed("the modules of include, imports and autodiscover_tasks", error) from error


def _check_name(name: str, module_name: str) -> None:
    if not module_name:
        raise AppNotFound(f"-A {name}: a module is missing before the colon: -A module:attribute")
    if "/" in module_name or os.sep in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace(os.sep, ".").replace("/", ".")
        raise AppNotFound(f"-A {name}: that is a file; give the name of the module: -A {dotted}")


def _exists(name: str) -> bool:
    """Tell whether there is a module of this name; an error while its packages are imported is not about `name`."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return False
        raise _import_failed(name, error) from error
    except Exception as error:
        raise _import_failed(name, error) from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise AppNotFound(_no_such_module(name, error.name)) from None
        raise _import_failed(name, error) from error
    except Exception as error:
        raise _import_failed(name, error) from error


def _no_such_module(name: str, missing: str) -> str:
    folder = os.getcwd()  # noqa: PTH109 - shown as text
    near = nearest_name(missing, sorted(_modules_of(folder)))
    hint = f"; did you mean {near!r}?" if near else "."
    inside = "" if missing == name else f" (from {name!r})"
    return (
        f"there is no module {missing!r}{inside}: looked in {folder} and on the Python path{hint} "
        f"Start in the folder that holds it, or name that folder with --workdir"
    )


def _modules_of(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.endswith(".py"):
            yield entry.name[:-3]
        elif entry.is_dir() and not entry.name.startswith((".", "_")):
            yield entry.name


def _import_failed(name: str, error: Exception) -> AppNotFound:
    """Say what went wrong inside a module, with the line of the program where it did."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    where = f'\n  File "{frames[-1].filename}", line {frames[-1].lineno}: {frames[-1].line}' if frames else ""
    if isinstance(error, SyntaxError):
        where = f'\n  File "{error.filename}", line {error.lineno}: {(error.text or "").strip()}'
    return AppNotFound(f"importing {name} failed: {type(error).__name__}: {error}{where}")


def _attribute(module: ModuleType, path: str, name: str) -> Umbel:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            apps = _apps_in(module)
            there = f"its apps are {', '.join(apps)}" if apps else "there is no app in it"
            raise AppNotFound(f"-A {name}: the module {module.__name__!r} has no {path!r}; {there}")
        found = getattr(found, part)
    if isinstance(found, ModuleType):
        return _search(found, name)
    return _checked(found, f"{module.__name__}:{path}", name)


def _search(module: ModuleType, name: str) -> Umbel:
    wrong: tuple[str, Any] | None = None
    for attribute in _ATTRIBUTES:
        found = getattr(module, attribute, None)
        if isinstance(found, Umbel):
            return found
        if found is not None and not isinstance(found, ModuleType):
            wrong = wrong or (attribute, found)
    if hasattr(module, "__path__"):
        for submodule in _SUBMODULES:
            full = f"{module.__name__}.{submodule}"
            if _exists(full):
                return _search(_import(full), name)
    for suspect in vars(module).values():
        if isinstance(suspect, Umbel):
            return suspect
    if wrong is not None:
        return _checked(wrong[1], f"{module.__name__}:{wrong[0]}", name)
    raise AppNotFound(
        f"-A {name}: the module {module.__name__!r} holds no app. Make one there, app = Umbel({module.__name__!r}), "
        f"or name another place: -A module:attribute"
    )


def _checked(found: Any, place: str, name: str) -> Umbel:
    if isinstance(found, Umbel):
        return found
    kind = type(found)
    if any(cls.__module__.partition(".")[0] == "celery" for cls in kind.__mro__):
        raise AppNotFound(
            f"-A {name}: {place} is an app of the package celery; import Celery from umbel instead "
            f"(from umbel import Celery)"
        )
    if isinstance(found, Task):
        raise AppNotFound(f"-A {name}: {place} is a task, no app; name its module: -A {place.partition(':')[0]}")
    if callable(found):
        raise AppNotFound(
            f"-A {name}: {place} is a {kind.__name__}, no app. If it makes the app, call it in the module: "
            f"app = {place.rpartition(':')[2]}()"
        )
    raise AppNotFound(f"-A {name}: {place} is a {kind.__name__}, no app")


def _apps_in(module: ModuleType) -> list[str]:
    return sorted(name for name, value in vars(module).items() if isinstance(value, Umbel))
