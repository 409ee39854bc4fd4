"""Read settings from dicts, objects, modules, environment variables and the command line."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.core.settings import BY_NAME, BY_OLD_NAME, Kind, Setting, convert, nearest, unknown
from umbel.core.settings.convert import to_bool

__all__ = ["ENVIRONMENT", "from_cmdline", "from_environment", "load_source", "read_source", "setting_of"]

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    name: (f"UMBEL_{name.upper()}", f"CELERY_{name.upper()}")
    for name in ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
}
"""The settings that environment variables override, with the variables in the order of their rank."""

_LOOKS_NEW = re.compile(r"(task|worker|result|broker|beat|event|control|security)_")
_LOOKS_OLD = re.compile(r"(CELERY|CELERYD|CELERYBEAT|BROKER)_")


def from_environment(name: str, environ: Mapping[str, str]) -> str | None:
    """Return what the environment says about the setting `name`, or None; umbel's variable goes before
    Celery's.
    """
    for variable in ENVIRONMENT.get(name, ()):
        if environ.get(variable):
            return environ[variable]
    return None


def setting_of(name: str, namespace: str | None = None) -> Setting | None:
    """Return the setting that `name` means: a new name, an old one, or one with the namespace before it."""
    found = BY_NAME.get(name) or BY_OLD_NAME.get(name)
    if found is None and namespace and name.startswith(f"{namespace}_"):
        found = BY_NAME.get(name[len(namespace) + 1 :].lower())
    return found


def load_source(source: Any, *, silent: bool = False) -> Any:
    """Return the object behind a source: a name is imported as `module` or `module:attribute`, all else is
    itself.

    With `silent` a module that does not exist is the same as an empty one; an error inside it is never
    hidden.
    """
    if not isinstance(source, str):
        return source
    name, _, attribute = source.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            if silent:
                return {}
            return _attribute_path(source, error)
        raise
    return getattr(module, attribute) if attribute else module


def _attribute_path(source: str, error: ModuleNotFoundError) -> Any:
    parent, _, attribute = source.rpartition(".")
    missing_leaf = error.name == source
    if parent and missing_leaf and ":" not in source:
        module = importlib.import_module(parent)
        if hasattr(module, attribute):
            return getattr(module, attribute)
    raise ImproperlyConfigured(
        f"the configuration {source!r} cannot be imported: {error}. Give the name of a module that can "
        f"be imported "
        "from the working directory, without .py, or module:attribute"
    ) from error


def read_source(source: Any, *, namespace: str | None = None) -> dict[str, Any]:
    """Return the settings in a dict, an object, a class or a module, by their new names.

    A dict must hold settings only. Of an object or module, attributes that begin with an underscore, modules,
    functions and classes do not count, nor do names that do not look like settings; one that does and is
    unknown
    is an error. With a namespace, names under `NAMESPACE_` count and no others. Old and new names may be
    mixed
    only where both are given, or with a namespace.
    """
    values = dict(source) if isinstance(source, Mapping) else _attributes(source)
    if namespace:
        return _with_namespace(values, namespace)
    strict = isinstance(source, Mapping)
    known = {}
    for name, value in values.items():
        if name in BY_NAME or name in BY_OLD_NAME:
            known[name] = value
        elif strict or _LOOKS_NEW.match(name) or _LOOKS_OLD.match(name):
            raise ImproperlyConfigured(unknown(name))
    return _one_style(known)


def _attributes(source: Any) -> dict[str, Any]:
    names = [name for name in dir(source) if not name.startswith("_")]
    return {name: value for name in names if _counts(name, value := getattr(source, name))}


def _counts(name: str, value: Any) -> bool:
    if isinstance(value, ModuleType):
        return False
    if inspect.isclass(value) or inspect.isroutine(value):
        setting = BY_NAME.get(name) or BY_OLD_NAME.get(name)
        return setting is not None and setting.kind is Kind.ANY
    return True


def _with_namespace(values: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    prefix = f"{namespace}_"
    result = {}
    for name, value in values.items():
        if not name.startswith(prefix):
            continue
        setting = BY_NAME.get(name[len(prefix) :].lower())
        if setting is None:
            raise ImproperlyConfigured(unknown(name, namespace))
        result[setting.name] = convert(setting, value)
    return result


def _one_style(values: Mapping[str, Any]) -> dict[str, Any]:
    old = [name for name in values if name in BY_OLD_NAME and name not in BY_NAME]
    new = [name for name in values if name in BY_NAME]
    result = {}
    odd = set(new if len(old) > len(new) else old) if old and new else set()
    if odd:
        rest = {_setting(name).name for name in values if name not in odd}
        rename = [name for name in sorted(odd) if _setting(name).name not in rest]
        if rename:
            raise ImproperlyConfigured(_mixed(rename))
    for name, value in values.items():
        if name not in odd:
            result[_setting(name).name] = convert(_setting(name), value)
    return result


def _setting(name: str) -> Setting:
    return BY_NAME.get(name) or BY_OLD_NAME[name]


def _mixed(names: Iterable[str]) -> str:
    pairs = []
    for name in names:
        setting = _setting(name)
        pairs.append((name, setting.name if name != setting.name else (setting.old or (f"{name} has no old name",))[0]))
    width = max(len(name) for name, _ in pairs)
    table = "\n".join(f"  {name:<{width}}  ->  {other}" for name, other in pairs)
    return f"old and new names of settings are mixed; use one kind only. Rename:\n{table}"


_TYPE_PREFIX = re.compile(r"\((\w+)\)")


def _json_of(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, (dict if kind is dict else list)):
            raise ValueError(f"{text} is not JSON for a {kind.__name__}")
        return kind(value)

    return read


_CASTS: Mapping[str, Callable[[str], Any]] = {
    "bool": to_bool,
    "dict": _json_of(dict),
    "float": float,
    "int": int,
    "json": json.loads,
    "list": _json_of(list),
    "str": str,
    "string": str,
    "tuple": _json_of(tuple),
    "any": str,
}


def from_cmdline(argv: Iterable[str], namespace: str = "celery") -> dict[str, Any]:
    """Return the settings in arguments such as `worker.concurrency=2` or `task_queues=(json){…}`, by new
    name.

    A dot is the same as an underscore, case does not count, and a name that begins with either belongs to
    `namespace` ("celery" is none). `(type)` before a value reads it as that type instead of the setting's own.
    """
    result = {}
    for argument in argv:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise ImproperlyConfigured(f"{argument!r} is no setting: write name=value")
        key = name.lower().replace(".", "_")
        if key.startswith("_"):
            key = key[1:] if namespace.lower() in ("", "celery") else namespace.lower() + key
        setting = BY_NAME.get(key)
        if setting is None:
            raise ImproperlyConfigured(unknown(key))
        result[setting.name] = _cast(setting, text)
    return result


def _cast(setting: Setting, text: str) -> Any:
    found = _TYPE_PREFIX.match(text)
    if found is None:
        return convert(setting, text, from_text=True)
    cast = _CASTS.get(found[1])
    if cast is None:
        near = nearest(found[1], _CASTS)
        raise ImproperlyConfigured(
            f"{setting.name}: there is no type ({found[1]})" + (f"; did you mean ({near})?" if near else "")
        )
    try:
        value = cast(text[found.end() :])
    except ValueError as error:
        raise ImproperlyConfigured(f"{setting.name}: {error}") from None
    return convert(setting, value)
