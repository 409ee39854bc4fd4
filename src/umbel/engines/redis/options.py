"""What the Redis engine can be told, in the URL's query or the transport options, by kombu's and redis-py's names."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from umbel.core.envelope import BASE64, TEXT
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.serialization import accept_set

__all__ = ["RESULT_PREFIX", "read_options"]

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_VERIFY = {
    "required": "required",
    "cert_required": "required",
    "optional": "optional",
    "cert_optional": "optional",
    "none": "none",
    "cert_none": "none",
}
_VERSIONS = {"tlsv1.2": "TLSv1_2", "tlsv1_2": "TLSv1_2", "tlsv1.3": "TLSv1_3", "tlsv1_3": "TLSv1_3"}


def _text(name: str, value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise ImproperlyConfigured(f"{name} must be a text, not {value!r}")


def _seconds(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if 0 <= number < float("inf"):
        return number
    raise ImproperlyConfigured(f"{name} must be a number of seconds, not {value!r}")


def _deadline(name: str, value: Any) -> float | None:
    """Read a time-out; None keeps the default, since every call has a deadline."""
    if value is None or value in ("", "None", "none"):
        return None
    number = _seconds(name, value)
    if number > 0:
        return number
    raise ImproperlyConfigured(f"{name} must be more than 0 seconds; leave it out for the default")


def _count(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number >= 0:
        return number
    raise ImproperlyConfigured(f"{name} must be a whole number that is not negative, not {value!r}")


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}")


def _steps(name: str, value: Any) -> tuple[int, ...]:
    try:
        steps = tuple(sorted(int(step) for step in value))
    except (TypeError, ValueError):
        steps = ()
    if steps and steps[0] == 0 and len(set(steps)) == len(steps):
        return steps
    raise ImproperlyConfigured(f"{name} must be different whole numbers with 0 among them, such as [0, 3, 6, 9]")


def _separator(name: str, value: Any) -> bytes:
    return (_text(name, value) or "\x06\x16").encode()


def _fanout(name: str, value: Any) -> str:
    """Read kombu's `fanout_prefix`: true for the usual one, false for none, or a text of its own."""
    if str(value).lower() in _TRUE | _FALSE:
        return "/{db}." if _flag(name, value) else ""
    return _text(name, value)


def _accepted(name: str, value: Any) -> frozenset[str]:
    try:
        return accept_set([value] if isinstance(value, str) else value)
    except TypeError:
        raise ImproperlyConfigured(f"{name} must be a list of serializers, not {value!r}") from None


def _encoding(name: str, value: Any) -> str:
    if value in (BASE64, TEXT):
        return str(value)
    raise ImproperlyConfigured(f"{name} must be {BASE64!r} or {TEXT!r}, not {value!r}")


def _verify(name: str, value: Any) -> str:
    if isinstance(value, ssl.VerifyMode):
        return value.name.removeprefix("CERT_").lower()
    if value in (0, 1, 2) and not isinstance(value, bool):
        return ssl.VerifyMode(value).name.removeprefix("CERT_").lower()
    found = _VERIFY.get(str(value).lower())
    if found:
        return found
    raise ImproperlyConfigured(f"{name} must be required, optional or none, not {value!r}")


def _version(name: str, value: Any) -> ssl.TLSVersion:
    if isinstance(value, ssl.TLSVersion):
        return value
    found = _VERSIONS.get(str(value).lower())
    if found:
        return ssl.TLSVersion[found]
    raise ImproperlyConfigured(f"{name} must be TLSv1.2 or TLSv1.3, not {value!r}")


def _mapping(name: str, value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ImproperlyConfigured(f"{name} must be a mapping, not {type(value).__name__}")


def _anything(name: str, value: Any) -> Any:
    del name
    return value


#: Set by an app: what `result_backend_transport_options` says under global_keyprefix.
RESULT_PREFIX = "result_global_keyprefix"

#: Name → how its value is read. Those named like a field of `Location` become that field.
_READ: dict[str, Callable[[str, Any], Any]] = {
    "global_keyprefix": _text,
    RESULT_PREFIX: _text,
    "virtual_host": _text,
    "db": _text,
    "username": _text,
    "password": _anything,
    "credential_provider": _anything,
    "reauth_check_interval": _seconds,
    "client_name": _text,
    "socket_timeout": _deadline,
    "socket_connect_timeout": _deadline,
    "socket_keepalive": _flag,
    "socket_keepalive_options": _mapping,
    "health_check_interval": _seconds,
    "priority_steps": _steps,
    "sep": _separator,
    "fanout_prefix": _fanout,
    "fanout_patterns": _flag,
    "accept_content": _accepted,
    "body_encoding": _encoding,
    "master_name": _text,
    "min_other_sentinels": _count,
    "sentinel_kwargs": _mapping,
    "ssl": _anything,
    "ssl_cert_reqs": _verify,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_ca_data": _anything,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_password": _text,
    "ssl_check_hostname": _flag,
    "ssl_min_version": _version,
    "ssl_ciphers": _text,
}

#: Name → why nothing has to be done for it: what it asks for always holds here.
_ALWAYS_SO: dict[str, str] = {
    **dict.fromkeys(
        ("visibility_timeout", "unacked_restore_limit", "unacked_restore_interval", "unacked_restore_throttle"),
        "a lease lasts for as long as its worker lives, and what a dead worker held is taken over within a lease",
    ),
    **dict.fromkeys(
        ("unacked_key", "unacked_index_key", "unacked_mutex_key", "unacked_mutex_expire"),
        "what Celery's workers hold unacknowledged is never touched, whatever its key",
    ),
    "polling_interval": "nothing polls: Redis wakes the worker",
    "max_connections": "a process has one connection per thread that works, and no pool",
    "retry_policy": "a worker tries to store an outcome for as long as it holds the lease",
    **dict.fromkeys(
        ("max_retries", "interval_start", "interval_step", "interval_max", "errors_max_retries"),
        "publishing follows task_publish_retry_policy",
    ),
    "protocol": "RESP2 is spoken, which every server understands",
    "decode_responses": "the engine reads bytes",
    "additional_connection_errors": "every failure of a connection is told as an OperationalError",
    "wait_for_connection": "a worker waits for Redis",
}

#: Name → (the values that say nothing, why no other is possible).
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "ack_emulation": ((True, "true", "True", "1"), "without it every crash would lose messages; leave it out"),
    "retry_on_timeout": (
        (False, None, "false", "False", "0"),
        "what may have been done is never sent twice; leave it out",
    ),
    "deadletter_queue": ((None, ""), "messages that are given up are kept apart: see `umbel dead`; leave it out"),
    "sentinel_fanout_compat": (
        (False, None, "false", "False", "0"),
        "upgrade workers with kombu older than 5.4 first; leave it out",
    ),
    "queue_order_strategy": (
        ("round_robin", None),
        "queues take turns, so that none waits for ever: for an order, give queues to workers of their own",
    ),
    "result_chord_ordered": (
        (True, None, "true", "True", "1"),
        "the values of a chord are in the order of its members; leave it out, for Celery's workers as well",
    ),
    "retry_on_error": ((None, ()), "what may have been done is never sent twice; leave it out"),
    "ssl_validate_ocsp": ((False, None, "false", "False"), "certificates are verified without OCSP; leave it out"),
    "ssl_validate_ocsp_stapled": (
        (False, None, "false", "False"),
        "certificates are verified without OCSP; leave it out",
    ),
    "connection_class": ((None,), "umbel connects by itself; leave it out"),
    "connection_pool": ((None,), "umbel connects by itself; leave it out"),
    "retry": ((None,), "what may have been done is never sent twice; leave it out"),
}


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say something, by name, checked and converted.

    Raises ImproperlyConfigured for a name that does not exist or a value that does not fit, NotSupportedError for
    what is not possible; both say what to do.
    """
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name in _READ:
            if value is not None or name == "ssl_cert_reqs":
                read[name] = _READ[name](name, value)
        elif name in _REFUSED:
            allowed, why = _REFUSED[name]
            if not any(value == item for item in allowed):
                raise NotSupportedError(f"the Redis engine does not support {name}={value!r}: {why}")
        elif name not in _ALWAYS_SO:
            raise _unknown(str(name))
    return {name: value for name, value in read.items() if value is not None}


def _unknown(name: str) -> ImproperlyConfigured:
    names = sorted({*_READ, *_ALWAYS_SO, *_REFUSED} - {RESULT_PREFIX})
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f". It knows {', '.join(names)}"
    return ImproperlyConfigured(f"the Redis engine has no option {name!r}{hint}")
