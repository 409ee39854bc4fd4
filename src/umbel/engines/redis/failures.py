"""What goes wrong with a Redis, as errors that say what to do, whether the request may have been carried out, and
whether the settings are to blame.
"""

from __future__ import annotations

import socket
import ssl

from umbel.core.errors import EngineBusy, OperationalError, StorageFull
from umbel.engines.redis.location import Location

__all__ = ["RedisBusy", "RedisFailure", "RedisFull", "Unreachable", "closed", "of_connecting", "of_reply", "timed_out"]


class RedisFailure(OperationalError):
    """A call failed. `maybe_done`: it may have been carried out all the same; `code`: the first word of Redis' answer;
    `misconfigured`: no waiting helps, a setting or the server has to be changed.
    """

    maybe_done: bool = False
    misconfigured: bool = False
    code: str = ""


class RedisFull(RedisFailure, StorageFull):
    """Redis has reached its memory limit, or cannot write its disk."""


class RedisBusy(RedisFailure, EngineBusy):
    """Redis answers, but not yet with what was asked: it loads its data, or a script runs."""


class Unreachable(RedisFailure, EngineBusy):
    """No connection, or none any more; with `maybe_done` the request was sent and no answer came.

    `ended`: there was a connection, and the other side has ended it.
    """

    ended: bool = False


_FORBIDDEN = (
    "the user at {where} may not do this ({text}); umbel's user needs its own keys and channels: "
    "ACL SETUSER <user> +@all -@admin -@dangerous +client|id +client|unblock +client|setname +info ~<prefix>* "
    "&<prefix>*"
)
_LOGIN = "{where} refuses user name or password ({text}): write redis://user:password@host, special characters as %XX"

#: First word of an error → (class, text, settings are to blame).
_REPLIES: dict[str, tuple[type[RedisFailure], str, bool]] = {
    "NOAUTH": (
        RedisFailure,
        "{where} asks for a password: write redis://:password@host or redis://user:password@host",
        True,
    ),
    "WRONGPASS": (RedisFailure, _LOGIN, True),
    "NOPERM": (RedisFailure, _FORBIDDEN, True),
    "DENIED": (
        RedisFailure,
        (
            "{where} runs in protected mode and takes no connections from other machines: give it a password "
            "(requirepass) or bind it to an address"
        ),
        True,
    ),
    "READONLY": (
        RedisFailure,
        "{where} is a read-only replica: let the URL name the master, or use sentinel:// so that it is found",
        True,
    ),
    "OOM": (
        RedisFull,
        (
            "{where} has reached maxmemory and takes nothing more ({text}): raise maxmemory, let workers catch up, or "
            "shorten result_expires"
        ),
        False,
    ),
    "MISCONF": (
        RedisFull,
        "{where} cannot write its data to disk and so takes no writes ({text}): look at its log, make room on the disk",
        False,
    ),
    "LOADING": (RedisBusy, "{where} is loading its data from disk; it answers when that is done", False),
    "BUSY": (
        RedisBusy,
        "{where} is held up by a script of another program; SCRIPT KILL (or FUNCTION KILL) ends it if it only reads",
        False,
    ),
    "MASTERDOWN": (RedisBusy, "{where} is a replica that has lost its master; it answers when the link is up", False),
    "TRYAGAIN": (RedisBusy, "{where} moves these keys at the moment ({text})", False),
    "NOREPLICAS": (
        RedisBusy,
        "{where} has fewer replicas than min-replicas-to-write asks for, and takes no writes",
        False,
    ),
    **dict.fromkeys(
        ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"),
        (
            RedisFailure,
            (
                "{where} is a Redis Cluster, which umbel (like Celery) does not support: use a single server, with "
                "sentinel:// for failover"
            ),
            True,
        ),
    ),
    "WRONGTYPE": (
        RedisFailure,
        (
            "a key that umbel uses in {where} holds something else ({text}): give umbel a database of its own, or set "
            "global_keyprefix"
        ),
        True,
    ),
}

#: Words in an error without a code of its own → the same.
_PHRASES: tuple[tuple[str, tuple[type[RedisFailure], str, bool]], ...] = (
    (
        "DB index is out of range",
        (RedisFailure, "{where} has no database {db}: choose a lower number in the URL, or raise `databases`", True),
    ),
    ("SELECT is not allowed in cluster", _REPLIES["MOVED"]),
    (
        "without any password configured",
        (RedisFailure, "{where} has no password, but the URL gives one: leave it out, or set requirepass", True),
    ),
    ("invalid password", (RedisFailure, _LOGIN, True)),
    ("max number of clients", (RedisBusy, "{where} has reached maxclients: raise it, or stop idle clients", False)),
    (
        "unknown command",
        (
            RedisFailure,
            (
                "{where} does not know a command that umbel needs ({text}): it needs Redis 6.2, Valkey 7.2 or newer, "
                "and no commands renamed"
            ),
            True,
        ),
    ),
)


def of_reply(text: str, location: Location) -> RedisFailure:
    """Return the error for what Redis answered; the command was not carried out."""
    code = text.partition(" ")[0]
    found = next((entry for phrase, entry in _PHRASES if phrase in text), None) or _REPLIES.get(code)
    kind, words, blame = found or (RedisFailure, "{where} answered: {text}", False)
    where = f"Redis at {location.address}"
    error = kind(words.format(where=where, text=text, db=location.db))
    error.code, error.misconfigured = code, blame
    return error


def closed(location: Location, *, sent: bool, why: object = "") -> Unreachable:
    """Return the error for a connection that broke; `sent`: the request was on its way."""
    reason = f" ({why})" if why else ""
    doubt = "; whether the request was carried out is not known" if sent else ""
    error = Unreachable(f"Redis at {location.address} closed the connection{reason}{doubt}")
    error.maybe_done = sent
    error.ended = True
    return error


def timed_out(location: Location, seconds: float, *, sent: bool = True) -> Unreachable:
    """Return the error for an answer that did not come in time."""
    doubt = "; whether the request was carried out is not known" if sent else ""
    error = Unreachable(f"Redis at {location.address} did not answer within {seconds:g} seconds{doubt}")
    error.maybe_done = sent
    return error


def too_old(location: Location, version: str) -> RedisFailure:
    """Return the error for a server that lacks commands that umbel needs."""
    error = RedisFailure(
        f"Redis at {location.address} is version {version}; upgrade it: umbel needs Redis 6.2, Valkey 7.2 or newer"
    )
    error.misconfigured = True
    return error


def no_master(location: Location, why: str, *, misconfigured: bool = False) -> Unreachable | RedisFailure:
    """Return the error for sentinels that named no usable master."""
    hosts = ", ".join(f"{host}:{port}" for host, port in location.sentinels)
    text = f"no sentinel of {hosts} knows a usable master {location.master_name!r}: {why}"
    error = RedisFailure(text) if misconfigured else Unreachable(text)
    error.misconfigured = misconfigured
    return error


def of_connecting(error: BaseException, location: Location, address: str) -> RedisFailure:
    """Return the error for a connection that could not be made; nothing was sent."""
    words, blame = _connecting(error, location)
    found = (RedisFailure if blame else Unreachable)(f"cannot connect to Redis at {address}: {words}")
    found.misconfigured = blame
    return found


def _connecting(error: BaseException, location: Location) -> tuple[str, bool]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            (
                f"its certificate is not trusted ({error.verify_message}): name the right authority in ssl_ca_certs, "
                "and the host in the URL as the certificate names it"
            ),
            True,
        )
    if isinstance(error, ssl.SSLError):
        return _tls(error), True
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return "the TLS handshake was not answered; if it does not use TLS write redis://, or use its TLS port", False
    if isinstance(error, TimeoutError):
        return f"no connection within {location.socket_connect_timeout:g} seconds; check host, port and firewall", False
    if isinstance(error, socket.gaierror):
        return f"the host is not known ({error.strerror}); check the name in the URL", False
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check host and port, and that Redis runs", False
    if isinstance(error, ConnectionResetError) and location.tls is not None:
        return "it closed the connection during the TLS handshake; if it does not use TLS write redis://", True
    if isinstance(error, FileNotFoundError):
        if location.path:
            return "there is no such socket; check `unixsocket` of the server", False
        return "a file of ssl_ca_certs, ssl_certfile or ssl_keyfile does not exist", True
    if isinstance(error, PermissionError):
        return "access is denied; check owner and mode (`unixsocketperm`) of the files", True
    return str(error) or type(error).__name__, False


def _tls(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"):
        return f"it does not speak TLS ({reason}); write redis:// instead of rediss://, or use its TLS port"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"it wants another certificate of this client ({reason}): set ssl_certfile and ssl_keyfile"
    if "UNEXPECTED_EOF" in reason:
        return "it closed the connection during the TLS handshake; if it does not use TLS write redis://"
    return f"TLS failed ({reason}): check ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_min_version"


def hung_up(location: Location) -> RedisFailure:
    """Return the error for a server that closes a connection during the first words."""
    words = f"Redis at {location.address} closed the connection at once"
    if location.tls is None:
        return Unreachable(
            f"{words}: if it uses TLS write rediss:// in the URL; else it is shutting down, or something between here "
            "and there lets nothing through"
        )
    if "ssl_certfile" in location.tls:
        return Unreachable(f"{words}: it is shutting down, or does not trust the certificate in ssl_certfile")
    error = RedisFailure(f"{words}: it wants a certificate of this client, so set ssl_certfile and ssl_keyfile")
    error.misconfigured = True
    return error
