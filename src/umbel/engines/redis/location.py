"""Which Redis a URL means, and how it is reached: `locate` reads URL and transport options once, into `Location`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from umbel.core.envelope import BASE64, JSON_ONLY, TEXT, TEXT_FROM
from umbel.core.errors import ImproperlyConfigured
from umbel.core.urls import mask_url
from umbel.engines.redis.options import RESULT_PREFIX, read_options

__all__ = ["Location", "locate"]

_PORT = 6379
_SENTINEL_PORT = 26379
_TLS = frozenset({"rediss", "valkeys"})
_SOCKETS = frozenset({"redis+socket", "valkey+socket", "socket", "unix"})
#: Celery ends a prefix for results with one of these.
_ENDS = (":", "_", "-", ".")


@dataclass(frozen=True)
class Location:
    """One Redis and how to speak to it. Times are seconds; prefixes stand in front of every key and channel."""

    url: str = field(repr=False)
    #: The same without secrets: for texts.
    shown: str = ""
    host: str = "127.0.0.1"
    port: int = _PORT
    #: Path of a Unix socket; "" for TCP.
    path: str = ""
    db: int = 0
    username: str = ""
    #: A text, or a function that returns one (kombu 5.7).
    password: Any = field(default="", repr=False)
    #: What supplies user name and password for each connection (redis-py's CredentialProvider).
    credential_provider: Any = None
    reauth_check_interval: float = 10.0
    #: Keys of messages, queues and the bus.
    prefix: bytes = b""
    #: Keys of results (`result_backend_transport_options["global_keyprefix"]`, ended as Celery ends it).
    result_prefix: bytes = b""
    client_name: str = ""
    socket_timeout: float = 5.0
    socket_connect_timeout: float = 4.0
    socket_keepalive: bool = True
    socket_keepalive_options: Mapping[int, int] | None = None
    #: A connection that was idle for longer is asked for a sign of life before it is used.
    health_check_interval: float = 25.0
    #: Keyword arguments of redis-py's SSLConnection; None for a connection that is not encrypted.
    tls: Mapping[str, Any] | None = None
    #: Addresses of sentinels; empty where the server's own address is known.
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    min_other_sentinels: int = 0
    sentinel_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: Lists of one queue: a message of priority n goes to the highest step that is not above n.
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)
    sep: bytes = b"\x06\x16"
    #: What stands in front of a fanout exchange's name in its channel, {db} for the database's number.
    fanout_prefix: str = "/{db}."
    #: Whether the routing key follows that name.
    fanout_patterns: bool = True
    #: What bodies may be decoded in order to find a message's name there (mime types; protocol 1).
    accept_content: frozenset[str] = JSON_ONLY
    #: How bodies are sent (kombu): base64 always, JSON as text always, or (None) large JSON as text.
    body_encoding: str | None = None

    @property
    def fanout(self) -> bytes:
        """What stands in front of a fanout exchange's name."""
        return self.fanout_prefix.replace("{db}", str(self.db)).encode()

    @property
    def text_from(self) -> int | None:
        """From how many bytes on JSON is sent as text (None: never)."""
        return _TEXT_FROM[self.body_encoding]

    @property
    def address(self) -> str:
        """Where the server is, as people write it."""
        if self.sentinels:
            return f"the master {self.master_name!r}"
        return self.path or f"{self.host}:{self.port}"


_TEXT_FROM = {None: TEXT_FROM, BASE64: None, TEXT: 0}
_FIELDS = frozenset(item.name for item in fields(Location))


def locate(url: str, options: Mapping[str, Any]) -> Location:
    """Read `redis://user:password@host:port/db?option=value` and its kin; the URL goes before `options`.

    Schemes: redis, valkey; rediss, valkeys (TLS); redis+socket, valkey+socket (`redis+socket:///run/redis.sock?
    virtual_host=0`); sentinel (`sentinel://a:26379;sentinel://b:26379/0`, with the option master_name).
    Raises ImproperlyConfigured, or NotSupportedError for an option that cannot be kept.
    """
    parts = [part.strip() for part in url.split(";") if part.strip()]
    scheme = parts[0].partition("://")[0].lower() if parts else ""
    if len(parts) > 1 and scheme != "sentinel":
        raise ImproperlyConfigured(f"{mask_url(url)}: a Redis engine has one URL; give several to broker_url")
    split = [_split(part, scheme, url) for part in parts]
    query = dict(pair for part in split for pair in parse_qsl(part.query, keep_blank_values=True))
    read = read_options({**options, **query})
    chosen: dict[str, Any] = {name: value for name, value in read.items() if name in _FIELDS}
    chosen |= _credentials(next((part for part in split if part.username or part.password), split[0]), read)
    if scheme in _SOCKETS:
        chosen["path"] = _socket_path(split[0], url)
    elif scheme == "sentinel":
        chosen["sentinels"] = tuple((part.hostname or "127.0.0.1", _port(part, url, _SENTINEL_PORT)) for part in split)
        if not chosen.get("master_name"):
            raise ImproperlyConfigured(
                f"{mask_url(url)}: say which master the sentinels watch, with the transport option master_name"
            )
    else:
        chosen["host"] = split[0].hostname or "127.0.0.1"
        chosen["port"] = _port(split[0], url, _PORT)
    chosen["db"] = _database(split, scheme, read, url)
    chosen["tls"] = _tls(scheme, read)
    chosen["prefix"] = str(read.get("global_keyprefix", "")).encode()
    chosen["result_prefix"] = _result_prefix(read)
    return Location(url=url, shown=mask_url(url), **chosen)


def _split(part: str, scheme: str, url: str) -> Any:
    text = part if "://" in part else f"{scheme}://{part}"
    try:
        found = urlsplit(text)
        _ = found.hostname
    except ValueError as error:
        raise ImproperlyConfigured(f"{mask_url(url)} is no URL of a Redis: {error}") from None
    return found


def _port(part: Any, url: str, default: int) -> int:
    try:
        return int(part.port or default)
    except ValueError:
        raise ImproperlyConfigured(
            f"{mask_url(url)}: the port must be a number up to 65535; write special characters of a password as %XX"
        ) from None


def _socket_path(part: Any, url: str) -> str:
    path = unquote(f"{part.netloc.rpartition('@')[2]}{part.path}")
    if not path.strip("/"):
        raise ImproperlyConfigured(f"{mask_url(url)}: name the socket, as in redis+socket:///run/redis/redis.sock")
    return path if path.startswith("/") else f"/{path}"


def _credentials(part: Any, read: Mapping[str, Any]) -> dict[str, Any]:
    provider = read.get("credential_provider")
    if provider is not None:
        return {"credential_provider": _provider(provider), "username": "", "password": ""}
    found = {}
    if part.username:
        found["username"] = unquote(part.username)
    if part.password:
        found["password"] = unquote(part.password)
    return found


def _provider(value: Any) -> Any:
    if isinstance(value, str):
        module, _, name = value.replace(":", ".").rpartition(".")
        try:
            value = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ImproperlyConfigured(f"credential_provider {value!r} cannot be imported: {error}") from error
    if isinstance(value, type):
        value = value()
    if not callable(getattr(value, "get_credentials", None)):
        raise ImproperlyConfigured("credential_provider must have a method get_credentials (redis.CredentialProvider)")
    return value


def _database(split: list[Any], scheme: str, read: Mapping[str, Any], url: str) -> int:
    """The number of the database: virtual_host or db, else the path of the last URL that has one; 0 without any."""
    paths = [] if scheme in _SOCKETS else [part.path.strip("/") for part in split]
    named = str(read.get("virtual_host") or read.get("db") or "").strip("/")
    text = named or next((path for path in reversed(paths) if path), "0")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    raise ImproperlyConfigured(
        f"{mask_url(url)}: the database of a Redis is a number, such as redis://host:6379/0, not {text!r}"
    )


def _tls(scheme: str, read: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments for an encrypted connection: rediss://, or `ssl` (broker_use_ssl, redis_backend_use_ssl) set."""
    wanted = read.get("ssl")
    if isinstance(wanted, Mapping):
        read = {**read_options({_tls_name(str(name)): value for name, value in wanted.items()}), **read}
    elif isinstance(wanted, str):
        wanted = wanted.lower() in ("1", "true", "yes")
    elif wanted is not None and not isinstance(wanted, bool):
        raise ImproperlyConfigured("ssl must be True, False or a mapping with ssl_cert_reqs, ssl_ca_certs …")
    if wanted is None:
        wanted = scheme in _TLS or (scheme == "sentinel" and any(name.startswith("ssl_") for name in read))
    if not wanted and scheme not in _TLS:
        if any(name.startswith("ssl_") for name in read):
            raise ImproperlyConfigured("ssl_… options need an encrypted connection: write rediss://")
        return None
    chosen = {name: value for name, value in read.items() if name.startswith("ssl_")}
    return {"ssl_cert_reqs": "required", **chosen}


def _tls_name(name: str) -> str:
    return name if name.startswith("ssl_") else f"ssl_{name}"


def _result_prefix(read: Mapping[str, Any]) -> bytes:
    prefix = str(read.get(RESULT_PREFIX, read.get("global_keyprefix", "")))
    return (prefix if not prefix or prefix.endswith(_ENDS) else f"{prefix}_").encode()
