"""From the settings about connections to the options of engines: which setting means which option of which engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.core.urls import mask_url, several_urls
from umbel.engine.failover import failover
from umbel.engine.registry import open_engine, scheme_of
from umbel.engine.seam import Engine

__all__ = ["backend_options", "broker_options", "is_rabbitmq", "open_urls", "shared_options"]

_REDIS, _AMQP = "redis", "amqp"
_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("redis", "rediss", "redis+socket", "sentinel", "valkey", "valkeys", "valkey+socket"), _REDIS),
    **dict.fromkeys(("socket", "unix"), _REDIS),
    **dict.fromkeys(("amqp", "amqps", "pyamqp", "librabbitmq"), _AMQP),
}
#: Schemes whose engines take all addresses in one URL and look for the one that works by themselves.
_TAKE_SEVERAL = frozenset({"amqp", "amqps", "pyamqp", "librabbitmq", "sentinel"})

#: Setting → option, for settings that somebody has set. Celery passes the same values to kombu.
_BROKER: Mapping[str, Mapping[str, str]] = {
    _REDIS: {"broker_connection_timeout": "socket_connect_timeout"},
    _AMQP: {
        "broker_connection_timeout": "connect_timeout",
        "broker_heartbeat": "heartbeat",
        "broker_login_method": "login_method",
        "broker_native_delayed_delivery_queue_type": "delay_queue_type",
    },
}
_BACKEND: Mapping[str, str] = {
    "redis_username": "username",
    "redis_password": "password",
    "redis_client_name": "client_name",
    "redis_socket_timeout": "socket_timeout",
    "redis_socket_connect_timeout": "socket_connect_timeout",
    "redis_socket_keepalive": "socket_keepalive",
    "redis_backend_health_check_interval": "health_check_interval",
    "redis_backend_credential_provider": "credential_provider",
}
_SHUFFLE = "shuffle"


def is_rabbitmq(url: str) -> bool:
    """Tell whether a URL names a RabbitMQ, which keeps no results."""
    return _FAMILIES.get(scheme_of(url)) == _AMQP


def broker_options(conf: Any, url: str) -> dict[str, Any]:
    """Return the options for the engine of a broker: those of its connection, and `broker_transport_options`."""
    family = _FAMILIES.get(scheme_of(url), "")
    options = _given(conf, _BROKER.get(family, {}))
    if conf.broker_use_ssl:
        if not family:
            raise ImproperlyConfigured(
                f"broker_use_ssl is set, but {mask_url(url)} uses no network: leave the setting out"
            )
        options["ssl"] = conf.broker_use_ssl
    if family == _AMQP and conf.broker_failover_strategy:
        options["failover_strategy"] = conf.broker_failover_strategy
    if family:
        # Where a message's name is in its body, the engine has to decode that.
        options["accept_content"] = conf.accept_content
    return {**options, **conf.broker_transport_options}


def backend_options(conf: Any, url: str) -> dict[str, Any]:
    """Return the options for the engine of a result store."""
    options: dict[str, Any] = {}
    if _FAMILIES.get(scheme_of(url)) == _REDIS:
        options = _given(conf, _BACKEND)
        if conf.redis_backend_use_ssl:
            options["ssl"] = conf.redis_backend_use_ssl
    return {**options, **conf.result_backend_transport_options}


def shared_options(conf: Any, url: str) -> dict[str, Any]:
    """Return the options where one engine is broker and result store: what the broker's settings say goes first."""
    options = {**backend_options(conf, url), **broker_options(conf, url)}
    if _FAMILIES.get(scheme_of(url)) == _REDIS:
        # The broker's prefix is not that of results, as little as in Celery.
        options["result_global_keyprefix"] = conf.result_backend_transport_options.get("global_keyprefix") or ""
        if "global_keyprefix" not in conf.broker_transport_options:
            options.pop("global_keyprefix", None)
    return options


def open_urls(conf: Any, text: str, options: Callable[[Any, str], dict[str, Any]]) -> Engine:
    """Open the engine of a URL, or of several joined by `;`, of which the first that can be reached is used."""
    urls = several_urls(text)
    if len(urls) == 1 or scheme_of(urls[0]) in _TAKE_SEVERAL:
        return open_engine(text, options(conf, urls[0]))
    if len({_FAMILIES.get(scheme_of(url)) for url in urls}) != 1 or not _FAMILIES.get(scheme_of(urls[0])):
        raise ImproperlyConfigured(
            f"{mask_url(text)}: several URLs are alternatives, so they must all be Redis or all RabbitMQ"
        )
    strategy = conf.broker_failover_strategy
    return failover(urls, lambda url: open_engine(url, options(conf, url)), shuffle=strategy == _SHUFFLE)


def _given(conf: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {option: conf[name] for name, option in names.items() if conf.value_set_for(name) and conf[name] is not None}
