"""Where a RabbitMQ server is and how it is spoken to: the URL with its query, and the transport options."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote

from umbel.core.envelope import JSON_ONLY
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.serialization import accept_set

__all__ = ["OPTIONS", "Address", "Location", "locate"]

#: Name → meaning. The same names are taken from the URL's query and from `broker_transport_options`.
OPTIONS: dict[str, str] = {
    "heartbeat": "seconds between two signs of life of a worker's connection (default 10; 0 turns them off)",
    "connect_timeout": "seconds that connecting to one address may take (default 4)",
    "read_timeout": "seconds that an answer or a confirmation may take (default 10)",
    "write_timeout": "seconds that handing bytes to the network may take (default 10)",
    "login_method": "PLAIN, AMQPLAIN or EXTERNAL (default: what the server offers)",
    "login_response": "the bytes that answer a login method of your own",
    "client_properties": "a mapping that RabbitMQ's management shows beside the connection",
    "confirm_publish": "kombu's switch for publisher confirms, which are always on here",
    "ssl": "True, or a mapping with the names below without ssl_",
    "ssl_ca_certs": "file with the certificates of the authorities to trust (also ca_certs)",
    "ssl_certfile": "file with this client's certificate (also certfile)",
    "ssl_keyfile": "file with its private key (also keyfile)",
    "ssl_cert_reqs": "CERT_REQUIRED (default), CERT_OPTIONAL or CERT_NONE (also cert_reqs)",
    "ssl_server_hostname": "the name that the certificate must show (default: the host of the URL)",
    "accept_content": "serializers whose bodies may be decoded to find a protocol 1 message's name (default: json)",
    "delay_queue_type": "type of the queues that hold delayed messages: quorum (default, as Celery's) or classic",
    "failover_strategy": "order in which several hosts are tried: round-robin (default) or shuffle",
}
#: Options of kombu's publish retries; umbel has one place for them.
_RETRIES = ("max_retries", "interval_start", "interval_step", "interval_max", "retry_errors", "errors_max_retries")
_VERIFY = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_SSL = ("ca_certs", "certfile", "keyfile", "cert_reqs", "server_hostname")
_TLS_SCHEMES = ("amqps",)


@dataclass(frozen=True)
class Address:
    """One server: whom to log in as, and where."""

    host: str = "localhost"
    port: int = 5672
    user: str = "guest"
    password: Any = "guest"  # noqa: S105 - what RabbitMQ is installed with
    vhost: str = "/"
    tls: bool = False

    @property
    def text(self) -> str:
        """Host, port and vhost, without anything secret."""
        return f"{self.host}:{self.port}, vhost {self.vhost!r}"


@dataclass(frozen=True)
class Location:
    """The servers of one URL, tried in turn, and how to speak to them. Times are seconds."""

    url: str
    addresses: tuple[Address, ...]
    heartbeat: float = 10.0
    connect_timeout: float = 4.0
    read_timeout: float = 10.0
    write_timeout: float = 10.0
    login_method: str | None = None
    login_response: Any = None
    client_properties: Mapping[str, Any] = field(default_factory=dict)
    tls: Mapping[str, Any] = field(default_factory=dict)
    delay_queue_type: str = "quorum"
    shuffle: bool = False
    #: What bodies may be decoded in order to find a message's name there (mime types; protocol 1).
    accept_content: frozenset[str] = JSON_ONLY


def locate(url: str, options: Mapping[str, Any]) -> Location:
    """Read `amqp://user:password@host:5672/vhost?heartbeat=10` (several joined by `;`); `options` fill the rest.

    Raises ImproperlyConfigured for an option that does not exist or fit.
    """
    given: dict[str, Any] = dict(options)
    addresses: list[Address] = []
    scheme = ""
    for part in filter(None, (piece.strip() for piece in url.split(";"))):
        own, separator, rest = part.partition("://")
        scheme, rest = (own.lower(), rest) if separator else (scheme, part)
        rest, _, query = rest.partition("?")
        given |= dict(parse_qsl(query, keep_blank_values=True))
        addresses.append(_address(scheme, rest, addresses[0] if addresses else None))
    tls = _tls(given)
    if tls is not None:
        addresses = [_secured(address) for address in addresses]
    _check_names(given)
    return Location(
        url=url,
        addresses=tuple(addresses),
        heartbeat=_number(given, "heartbeat", 10.0),
        connect_timeout=_number(given, "connect_timeout", 4.0) or 4.0,
        read_timeout=_number(given, "read_timeout", 10.0) or 10.0,
        write_timeout=_number(given, "write_timeout", 10.0) or 10.0,
        login_method=given.get("login_method"),
        login_response=given.get("login_response"),
        client_properties=_mapping(given, "client_properties"),
        tls=tls or {},
        delay_queue_type=_choice(given, "delay_queue_type", ("quorum", "classic")),
        accept_content=accept_set(given["accept_content"]) if given.get("accept_content") else JSON_ONLY,
        shuffle=_choice(given, "failover_strategy", ("round-robin", "shuffle")) == "shuffle",
    )


def _address(scheme: str, rest: str, first: Address | None) -> Address:
    tls = scheme in _TLS_SCHEMES
    credentials, at, where = rest.rpartition("@")
    # A slash before the @ belongs to the password only if no host could end there.
    host_port, slash, vhost = where.partition("/")
    user, colon, password = credentials.partition(":")
    host, port = _host_port(host_port, 5671 if tls else 5672)
    inherited = first if first is not None and not at else None
    return Address(
        host=host,
        port=port,
        user=inherited.user if inherited else (unquote(user) or "guest"),
        password=inherited.password if inherited else (unquote(password) if colon else "guest"),
        # kombu: an empty path is the vhost "/", and so is "//"
        vhost=inherited.vhost if inherited and not slash else (unquote(vhost) or "/"),
        tls=tls,
    )


def _host_port(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, ""
    host = host.removeprefix("[").removesuffix("]") or "localhost"
    if not number:
        return unquote(host), port
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise ImproperlyConfigured(
            "broker_url: what follows the host is no port; write amqp://user:password@host:5672/vhost, and "
            "escape @ : / in a password with %40 %3A %2F"
        )
    return unquote(host), int(number)


def _secured(address: Address) -> Address:
    port = 5671 if address.port == 5672 and not address.tls else address.port
    return Address(address.host, port, address.user, address.password, address.vhost, tls=True)


def _tls(given: dict[str, Any]) -> dict[str, Any] | None:
    """Take the TLS options out of `given`; None where nothing speaks of TLS."""
    value = given.get("ssl")
    if isinstance(value, str):
        value = value.lower() in ("1", "true", "yes", "on")
    found: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {}
    for name in _SSL:
        for spelled in (f"ssl_{name}", name):
            if spelled in given:
                found[name] = given.pop(spelled)
    given.pop("ssl", None)
    found = {str(name).removeprefix("ssl_"): item for name, item in found.items()}
    for name in found:
        if name not in (*_SSL, "context"):
            raise ImproperlyConfigured(f"ssl has no option {name!r}; it knows {', '.join(_SSL)}")
    if "cert_reqs" in found:
        found["cert_reqs"] = _verify(found["cert_reqs"])
    return found if found or value else None


def _verify(value: Any) -> ssl.VerifyMode:
    if isinstance(value, (ssl.VerifyMode, int)) and not isinstance(value, bool):
        return ssl.VerifyMode(value)
    name = str(value).lower().removeprefix("ssl.").removeprefix("cert_")
    if name not in _VERIFY:
        raise ImproperlyConfigured(f"ssl_cert_reqs must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE, not {value!r}")
    return _VERIFY[name]


def _check_names(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in _RETRIES:
            raise NotSupportedError(
                f"the RabbitMQ engine takes no {name!r} in broker_transport_options: retries of publishing are set "
                "with task_publish_retry_policy, those of connecting with broker_connection_max_retries"
            )
        if name == "confirm_publish" and str(value).lower() in ("0", "false", "no", "off"):
            raise NotSupportedError(
                "confirm_publish cannot be turned off: what delay() has returned must be stored. Remove the option; "
                "confirmations are awaited in batches and cost little"
            )
        if name not in OPTIONS:
            near = get_close_matches(str(name), OPTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ImproperlyConfigured(
                f"the RabbitMQ engine has no option {name!r}{hint} it knows {', '.join(sorted(OPTIONS))}"
            )


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ImproperlyConfigured(f"{name} must be a number of seconds that is not negative, not {value!r}")
    return number


def _choice(given: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = str(given.get(name) or known[0]).lower()
    if value not in known:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(known)}, not {given[name]!r}")
    return value


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"{name} must be a mapping, not {value!r}")
    return value


def resolve_password(password: str | Callable[[], str]) -> str:
    """Return the password; a callable is asked each time, as kombu does."""
    return password() if callable(password) else password
