"""From the URL's scheme to the engine: loaded when it is first named, with an error that says what to do if not."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.urls import mask_url
from umbel.engine.instrument import instrument
from umbel.engine.seam import Engine, Factory

__all__ = ["open_engine", "register", "scheme_of", "schemes"]


class _Entry(NamedTuple):
    module: str
    extra: str = ""


_ENGINES: dict[str, _Entry] = {
    "memory": _Entry("umbel.engines.memory"),
    "sqlite": _Entry("umbel.engines.sqlite"),
    **dict.fromkeys(
        ("redis", "rediss", "redis+socket", "sentinel", "valkey", "valkeys", "valkey+socket"),
        _Entry("umbel.engines.redis", "redis"),
    ),
    **dict.fromkeys(("amqp", "amqps", "pyamqp", "librabbitmq"), _Entry("umbel.engines.rabbitmq", "rabbitmq")),
}

#: Schemes that Celery knows and no engine here answers to.
_PLANNED: dict[str, str] = {
    "rpc": "results as messages (rpc://)",
    **dict.fromkeys(("postgres", "postgresql", "postgresql+psycopg", "db+postgresql"), "PostgreSQL"),
    **dict.fromkeys(
        (
            *(
                "sqs",
                "gcpubsub",
                "azureservicebus",
                "azurestoragequeues",
                "kafka",
                "confluentkafka",
                "zookeeper",
            ),
            *(
                "mongodb",
                "filesystem",
                "etcd",
                "consul",
                "pyro",
                "sqla",
                "sqlalchemy",
                "db",
                "file",
                "cache",
                "s3",
            ),
            *(
                "gs",
                "dynamodb",
                "azureblockblob",
                "elasticsearch",
                "cassandra",
                "couchbase",
                "couchdb",
                "arangodb",
            ),
        ),
        "this technology",
    ),
}


#: Names without a scheme that Celery and its extensions give to result stores.
_NAMES = frozenset(("cache", "database", "django-cache", "django-db"))


def schemes() -> list[str]:
    """Return the schemes that can be opened."""
    return sorted(_ENGINES)


def register(scheme: str, module: str, *, extra: str = "") -> None:
    """Make `scheme://` open with `module.open_engine` (a `seam.Factory`).

    `extra` names the optional dependencies: `pip install umbel[<extra>]` is what a missing driver is answered with.
    """
    _ENGINES[scheme] = _Entry(module, extra)


def scheme_of(url: str) -> str:
    """Return the scheme of `url`; ImproperlyConfigured when it has none, NotSupportedError for Celery's bare names."""
    scheme, separator, _ = url.partition("://")
    if not separator and scheme != "rpc" and (scheme in _NAMES or scheme in _PLANNED):
        raise NotSupportedError(
            f"{scheme!r}: umbel has no engine for this store of Celery's; leave result_backend out, so that results "
            "stay with the messages, or name another store: redis://host/0 or sqlite:///results.db"
        )
    if not separator or not scheme:
        raise ImproperlyConfigured(
            f"{mask_url(url)!r} is no broker or result URL: write <scheme>://…, for example sqlite:///tasks.db"
        )
    return scheme.lower()


def open_engine(url: str, options: Mapping[str, Any] | None = None) -> Engine:
    """Open the engine that `url` names.

    Raises NotSupportedError for an engine that does not exist here, ImproperlyConfigured for a scheme nobody knows,
    options that do not fit, or a driver that is not installed.
    """
    scheme = scheme_of(url)
    entry = _ENGINES.get(scheme)
    if entry is None:
        raise _unknown(scheme, url)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if not entry.extra or (error.name or "").startswith("umbel"):
            raise
        raise ImproperlyConfigured(
            f"{mask_url(url)} needs the package {error.name!r}: pip install 'umbel[{entry.extra}]'"
        ) from error
    factory: Factory = module.open_engine
    return instrument(factory(url, options or {}))


def _unknown(scheme: str, url: str) -> ImproperlyConfigured:
    there_are = ", ".join(f"{name}://" for name in schemes())
    first, _, _ = scheme.partition("+")
    planned = _PLANNED.get(scheme) or _PLANNED.get(first)
    if planned:
        return NotSupportedError(
            f"{mask_url(url)}: umbel has no engine for {planned} yet; the engines that exist are {there_are}"
        )
    near = get_close_matches(scheme, [*_ENGINES, *_PLANNED], n=1)
    hint = f"did you mean {near[0]}://? " if near else ""
    return ImproperlyConfigured(f"{mask_url(url)}: no engine answers to {scheme}://; {hint}there are {there_are}")
