"""The settings of one app: a mapping over layers, read by attribute or by item."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from umbel.app.conf_sources import (
    ENVIRONMENT,
    from_cmdline,
    from_environment,
    load_source,
    read_source,
    setting_of,
)
from umbel.core.errors import CDeprecationWarning, ImproperlyConfigured, NotSupportedError
from umbel.core.queues import Queue
from umbel.core.settings import BY_NAME, BY_OLD_NAME, Setting, Support, check_together, convert, unknown
from umbel.core.settings.convert import is_secret
from umbel.core.urls import mask_url

__all__ = ["Found", "Settings"]

_HIDDEN = "********"
_MISSING: Any = object()
_FALLBACKS: Mapping[str, str] = {
    "broker_read_url": "broker_url",
    "broker_write_url": "broker_url",
    "result_backend": "broker_url",
    "result_accept_content": "accept_content",
    "task_default_exchange": "task_default_queue",
    "task_default_routing_key": "task_default_queue",
}
_Defaults = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


class Found(NamedTuple):
    """Where a setting was found: `namespace` and `name` joined by an underscore are its whole name."""

    namespace: str
    name: str
    setting: Setting


class _RefusingDict(dict[str, Any]):
    """The empty value of a setting that is not supported yet, which says so when something is put into it."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting.default or {})  # type: ignore[call-overload]
        self._setting = setting

    def _refuse(self, *_args: Any, **_kwargs: Any) -> Any:
        raise NotSupportedError(f"{self._setting.name} is not supported yet: {self._setting.note}")

    __setitem__ = __ior__ = setdefault = update = _refuse


class Settings(MutableMapping[str, Any]):
    """All settings of an app. Layers, the first that knows a setting wins:

    1. the environment, for `broker_url`, `broker_read_url`, `broker_write_url` and `result_backend`;
    2. changes: what the constructor and the running program set;
    3. the configuration source (`from_object`), read when a setting is first needed;
    4. `add_defaults`, the first added before later ones;
    5. the defaults of the table.

    New names, old names and names with the namespace before them all work. Unknown names and wrong types
    raise
    `ImproperlyConfigured`; reading an attribute that is no setting raises AttributeError, an item KeyError.
    `version` grows with each change, so that others may keep what they derived from settings.
    """

    def __init__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        before_load: Callable[[], None] | None = None,
        after_load: Callable[[Settings], None] | None = None,
    ) -> None:
        state = self.__dict__
        state["version"] = 0
        state["namespace"] = None
        state["_environ"] = os.environ if environ is None else environ
        state["_before_load"], state["_after_load"] = before_load, after_load
        state["_changes"], state["_source"], state["_defaults"] = {}, {}, []
        state["_pending"] = None
        state["_loaded"] = state["_loading"] = False
        state["_builtin"], state["_read"], state["_old_names"] = {}, set(), set()
        self.update(changes or {})

    # -- sources -----------------------------------------------------------------------------------

    def from_object(
        self, source: Any, *, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from a dict, object, class, module, `"module"` or `"module:attribute"` (replaces
        an earlier one).

        It is read when a setting is first needed, or now with `force`. `silent`: a missing module is an
        empty one.
        """
        state = self.__dict__
        state["namespace"] = namespace or self.namespace
        state["_pending"] = (source, silent)
        state["_loaded"] = False
        self._changed()
        if force:
            self.finalize()

    def from_envvar(self, variable: str, *, silent: bool = False, force: bool = False) -> bool:
        """Take settings from the module whose name is in an environment variable; return whether it is
        set.
        """
        name = self._environ.get(variable)
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"the environment variable {variable} is not set: set it to the name of a configuration module"
            )
        self.from_object(name, silent=silent, force=force)
        return True

    def from_cmdline(self, argv: list[str], namespace: str = "celery") -> None:
        """Take changes from arguments such as `worker.concurrency=2` (see `conf_sources.from_cmdline`)."""
        self._changes.update(from_cmdline(argv, namespace))
        self._changed()

    def add_defaults(self, defaults: _Defaults) -> None:
        """Add values of the lowest rank; a function is called when a setting is first needed."""
        if self._loaded or not callable(defaults):
            defaults = self._validated(defaults() if callable(defaults) else defaults)
        self._defaults.append(defaults)
        self._changed()

    def finalize(self) -> Settings:
        """Read the configuration source if that is still to do; check what belongs together."""
        self._load()
        check_together(self.__getitem__)
        return self

    def _load(self) -> None:
        if self._loaded or self._loading:
            return
        state = self.__dict__
        state["_loading"] = True
        try:
            if self._before_load is not None:
                self._before_load()
            if self._pending is not None:
                source, silent = self._pending
                loaded = load_source(source, silent=silent)
                state["_source"] = read_source(loaded, namespace=self.namespace)
                self._remember_old_names(loaded)
            state["_defaults"] = [self._validated(layer() if callable(layer) else layer) for layer in self._defaults]
            state["_loaded"] = True
        finally:
            state["_loading"] = False
            self._changed()
        if self._after_load is not None:
            self._after_load(self)

    def _remember_old_names(self, source: Any) -> None:
        if not self.namespace:
            names = source if isinstance(source, Mapping) else dir(source)
            self._old_names.update(name for name in names if name in BY_OLD_NAME)

    def _validated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {setting.name: convert(setting, value) for setting, value in map(self._pair, values.items())}

    def _pair(self, item: tuple[str, Any]) -> tuple[Setting, Any]:
        return self._setting(item[0]), item[1]

    def _setting(self, name: str) -> Setting:
        setting = setting_of(name, self.namespace)
        if setting is None:
            raise ImproperlyConfigured(unknown(name, self.namespace))
        if name in BY_OLD_NAME and not self.namespace:
            self._old_names.add(name)
        return setting

    # -- reading -----------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # only what is not yet in __dict__ comes here: resolved settings are kept there, so that reading one is quick
        if name.startswith("_"):
            raise AttributeError(name)
        setting = setting_of(name, self.namespace)
        if setting is None:
            raise AttributeError(unknown(name, self.namespace))
        return self._value(setting)

    def __getitem__(self, name: str) -> Any:
        setting = BY_NAME.get(name) or setting_of(name, self.namespace)
        if setting is None:
            raise KeyError(unknown(name, self.namespace))
        return self._value(setting)

    def _value(self, setting: Setting) -> Any:
        name = setting.name
        if name in self._read:
            return self.__dict__[name]
        if not self._loaded and not self._loading:
            self._load()
        value = self._resolved(setting)
        # what the environment may change at any time, and what falls back to that, is read anew each time
        if name not in ENVIRONMENT and not self._loading:
            self.__dict__[name] = value
            self._read.add(name)
        return value

    def _resolved(self, setting: Setting) -> Any:
        text = from_environment(setting.name, self._environ)
        value = convert(setting, text, from_text=True) if text is not None else self._given(setting)
        if value is None and setting.name in _FALLBACKS:
            value = self._value(BY_NAME[_FALLBACKS[setting.name]])
            if isinstance(value, Queue):
                value = value.exchange.name if setting.name.endswith("exchange") else value.routing_key
        return value

    def _given(self, setting: Setting) -> Any:
        for layer in self._layers():
            if setting.name in layer:
                return layer[setting.name]
        return self._builtin_value(setting)

    def _layers(self) -> Iterator[Mapping[str, Any]]:
        yield self._changes
        yield self._source
        yield from (layer for layer in self._defaults if isinstance(layer, dict))

    def _builtin_value(self, setting: Setting) -> Any:
        # kept, so that `conf.x["key"] = …` on a default dict is not forgotten
        if setting.name not in self._builtin:
            value: Any = copy.copy(setting.default)
            if isinstance(value, dict) and setting.support is Support.UNSUPPORTED:
                value = _RefusingDict(setting)
            elif value is not None:
                value = convert(setting, value)
            self._builtin[setting.name] = value
        return self._builtin[setting.name]

    def __iter__(self) -> Iterator[str]:
        return iter(BY_NAME)

    def __len__(self) -> int:
        return len(BY_NAME)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and setting_of(name, self.namespace) is not None

    def __repr__(self) -> str:
        return f"<Settings: {self.humanize()}>"

    def first(self, *names: str) -> Any:
        """Return the first value that is not None of these settings, or None."""
        return next((self[name] for name in names if self[name] is not None), None)

    def value_set_for(self, name: str) -> bool:
        """Tell whether anything but the table of defaults gives the setting a value."""
        setting = self._setting(name)
        self._load()
        given = any(setting.name in layer for layer in self._layers())
        return given or from_environment(setting.name, self._environ) is not None

    def get_by_parts(self, *parts: str) -> Any:
        """Return the setting whose name is the parts joined by underscores; empty parts do not count."""
        return self["_".join(part for part in parts if part)]

    def find_option(self, name: str, namespace: str = "") -> Found:
        """Return where `name` is a setting: in `namespace`, by itself, or in any namespace; KeyError if
        nowhere.
        """
        name, namespace = name.lower(), namespace.lower()
        for whole, found in ((f"{namespace}_{name}", namespace), (name, "")):
            if whole in BY_NAME:
                return Found(found, name, BY_NAME[whole])
        for whole, setting in BY_NAME.items():
            prefix, _, rest = whole.partition("_")
            if rest == name:
                return Found(prefix, name, setting)
        raise KeyError(unknown(name))

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Return the value of the setting that `find_option` finds."""
        return self[self.find_option(name, namespace).setting.name]

    # -- changing ----------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        setting = self._setting(name)
        self._changes[setting.name] = convert(setting, value)
        self._changed()

    def __delitem__(self, name: str) -> None:
        setting = setting_of(name, self.namespace)
        if setting is None or setting.name not in self._changes:
            raise KeyError(f"{name} was not changed, so it cannot be removed")
        del self._changes[setting.name]
        self._changed()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several settings at once; none is set if one is wrong."""
        self._changes.update(self._validated(dict(*args, **kwargs)))
        self._changed()

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Set a setting that nothing gives a value yet; return its value."""
        if not self.value_set_for(name):
            self[name] = default
        return self[name]

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Take a change back and return its value; KeyError if it was not changed and there is no default."""
        setting = setting_of(name, self.namespace)
        if default is not _MISSING and (setting is None or setting.name not in self._changes):
            return default
        value = self._changes.get(setting.name) if setting is not None else None
        del self[name]
        return value

    def clear(self) -> None:
        """Take all changes back."""
        self._changes.clear()
        self._changed()

    def copy(self) -> Settings:
        """Return settings of the same layers, which can be changed without changing these."""
        twin = Settings(self._changes, environ=self._environ)
        state = twin.__dict__
        for name in ("namespace", "_pending", "_loaded"):
            state[name] = self.__dict__[name]
        state["_source"], state["_defaults"] = dict(self._source), list(self._defaults)
        return twin

    @property
    def changes(self) -> dict[str, Any]:
        """The changes of the constructor and the running program, by new name, as a new dict."""
        return dict(self._changes)

    def _changed(self) -> None:
        state = self.__dict__
        for name in self._read:
            state.pop(name, None)
        self._read.clear()
        state["version"] += 1

    # -- showing -----------------------------------------------------------------------------------

    def without_defaults(self) -> dict[str, Any]:
        """Return the settings that something gives a value, by name."""
        return {name: self[name] for name in BY_NAME if self.value_set_for(name)}

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return settings by name, those given or (`with_defaults`) all; `censored` hides passwords and
        keys.
        """
        values = dict(self) if with_defaults else self.without_defaults()
        return {name: _censored(name, value) for name, value in values.items()} if censored else values

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return the same as lines of `name: value`."""
        table = self.table(with_defaults, censored)
        return "\n".join(f"{name}: {value!r}" for name, value in sorted(table.items()))

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn once about each old name in use, with the new one; return whether there is any."""
        self._load()
        for name in sorted(self._old_names):
            warnings.warn(
                f"the setting {name} has the new name {BY_OLD_NAME[name].name}",
                CDeprecationWarning,
                stacklevel=2,
            )
        return bool(self._old_names)


def _censored(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _censored(str(key), item) for key, item in value.items()}
    if value is not None and value != "" and is_secret(name):
        return mask_url(value) if isinstance(value, str) and "://" in value and name.endswith("_url") else _HIDDEN
    return mask_url(value) if isinstance(value, str) and "://" in value else value
