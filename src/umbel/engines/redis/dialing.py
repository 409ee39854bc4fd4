"""Connecting to a Redis: TCP, TLS or Unix socket with redis-py, then logging in; with sentinels, finding the master.

redis-py's defaults (RESP3, silent retries, naming itself to the server) are switched off.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import time
from collections.abc import Mapping
from typing import Any

from umbel.core.optional import load_optional
from umbel.engines.redis import failures
from umbel.engines.redis.location import Location
from umbel.engines.redis.wire import ReplyError, Wire, pack

__all__ = ["credentials", "dial"]


#: BLMOVE and ZMSCORE came with this version of Redis; every Valkey is newer.
_OLDEST = (6, 2)


def dial(location: Location, *, look: bool = False) -> Wire:
    """Connect, log in, choose the database; with sentinels, to the master that they name now.

    `look`: see whether umbel can use this server at all. Raises an error of `failures`; nothing of the caller's has
    been sent then.
    """
    if location.sentinels:
        return _dial_master(location, look=look)
    target = {"path": location.path} if location.path else {"host": location.host, "port": location.port}
    return _dial(location, target, location.path or f"{location.host}:{location.port}", look=look)


def _dial(
    location: Location, target: Mapping[str, Any], address: str, *, role: bool = False, look: bool = False
) -> Wire:
    wire = Wire(_connect(location, target, address), location, location.socket_timeout)
    try:
        _greet(wire, role=role, look=look)
    except BaseException:
        wire.close()
        raise
    return wire


def _connect(location: Location, target: Mapping[str, Any], address: str) -> Any:
    """Return a connected socket, TLS done."""
    module = load_optional("redis.connection", extra="redis", purpose=f"the engine of {location.shown}")
    arguments: dict[str, Any] = {
        **target,
        **_quiet(),
        "socket_timeout": location.socket_connect_timeout,
        "socket_connect_timeout": location.socket_connect_timeout,
        "redis_connect_func": _no_greeting,
        "protocol": 2,
    }
    kind = module.UnixDomainSocketConnection
    if "path" not in target:
        kind = module.Connection if location.tls is None else module.SSLConnection
        arguments["socket_keepalive"] = location.socket_keepalive
        if location.socket_keepalive_options is not None:
            arguments["socket_keepalive_options"] = dict(location.socket_keepalive_options)
        if location.tls is not None:
            # redis-py before 6 does not look at the host by itself.
            arguments |= {"ssl_check_hostname": location.tls.get("ssl_cert_reqs") != "none", **location.tls}
    errors = _errors()
    connection = kind(**arguments)
    try:
        connection.connect()
    except (OSError, ValueError, errors) as error:
        cause = error.__context__ if isinstance(error, errors) and error.__context__ is not None else error
        raise failures.of_connecting(cause, location, address) from error
    # The socket is taken over: what is left of the connection must not close it.
    sock, connection._sock = connection._sock, None
    return sock


def _errors() -> type[Exception]:
    """Return the root of redis-py's exceptions."""
    found: type[Exception] = load_optional("redis.exceptions", extra="redis", purpose="a Redis engine").RedisError
    return found


@functools.cache
def _quiet() -> dict[str, Any]:
    """Arguments that keep redis-py from trying again by itself, by the names of the installed version."""
    connection = load_optional("redis.connection", extra="redis", purpose="a Redis engine").AbstractConnection
    known = inspect.signature(connection.__init__).parameters
    return {"driver_info": None} if "driver_info" in known else {}


def _no_greeting(connection: Any) -> None:
    """Instead of redis-py's handshake, which sends commands that old servers and narrow ACLs refuse."""


def _greet(wire: Wire, *, role: bool, look: bool) -> None:
    """Log in, name the connection, choose the database and look whether it is a master: one round trip."""
    location = wire.location
    commands = [command for command in (_auth(location), _name(location), _select(location)) if command]
    commands += [("INFO", "server")] * look
    commands.append(("ROLE",) if role else ("PING",))
    deadline = time.monotonic() + location.socket_connect_timeout
    try:
        wire.send(b"".join(map(pack, commands)))
        replies = [wire.read(deadline) for _ in commands]
    except failures.RedisFailure as error:
        error.maybe_done = False
        if "closed the connection" in str(error):
            raise failures.hung_up(location) from error
        raise
    for command, reply in zip(commands, replies, strict=True):
        if not isinstance(reply, ReplyError):
            if command[0] == "INFO":
                _require_supported(reply, location)
            continue
        refusal = failures.of_reply(str(reply), location)
        # A server that is loading, or a user that may not PING or name itself, is for the call itself to meet.
        if command[0] in ("AUTH", "SELECT") or refusal.code in ("NOAUTH", "DENIED", "LOADING"):
            raise refusal
    if role and not isinstance(replies[-1], ReplyError) and replies[-1][0] != b"master":
        raise failures.no_master(location, "the one that they name is a replica")


def _require_supported(info: bytes, location: Location) -> None:
    """Raise for a server that is too old, or part of a cluster."""
    pairs = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    facts = {name: value for name, _, value in pairs}
    if facts.get("redis_mode") == "cluster":
        raise failures.of_reply("MOVED", location)
    version = facts.get("redis_version", "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST:
        raise failures.too_old(location, version)


def _auth(location: Location) -> tuple[Any, ...]:
    if location.credential_provider is not None:
        return ("AUTH", *location.credential_provider.get_credentials())
    password = location.password() if callable(location.password) else location.password
    if not password and not location.username:
        return ()
    return ("AUTH", location.username, password) if location.username else ("AUTH", password)


def _name(location: Location) -> tuple[Any, ...]:
    return ("CLIENT", "SETNAME", location.client_name) if location.client_name else ()


def _select(location: Location) -> tuple[Any, ...]:
    return ("SELECT", location.db) if location.db else ()


def credentials(location: Location) -> Any:
    """Return what a new connection would log in with; compared to find out that it has changed."""
    return _auth(location)


#: Which sentinel of a set has answered last: it is asked first.
_answered: dict[tuple[tuple[str, int], ...], tuple[str, int]] = {}


def _dial_master(location: Location, *, look: bool) -> Wire:
    """Ask one sentinel after the other for the master until one that is named takes the connection as a master."""
    last: failures.RedisFailure | None = None
    deadline = time.monotonic() + 2 * location.socket_connect_timeout
    good = _answered.get(location.sentinels)
    for host, port in sorted(location.sentinels, key=lambda address: address != good):
        try:
            master = _ask_sentinel(location, host, port)
            _answered[location.sentinels] = (host, port)
            target = {"host": master[0], "port": master[1]}
            return _dial(location, target, f"{master[0]}:{master[1]}", role=True, look=look)
        except failures.RedisFailure as error:
            last = error
        if time.monotonic() > deadline:
            break
    raise failures.no_master(location, str(last), misconfigured=last is not None and last.misconfigured) from last


def _ask_sentinel(location: Location, host: str, port: int) -> tuple[str, int]:
    """Return the address of the master, as one sentinel knows it."""
    given = dict(location.sentinel_kwargs)
    tls = {name: value for name, value in given.items() if name.startswith("ssl_")}
    share = max(0.1, location.socket_connect_timeout / len(location.sentinels))
    place = dataclasses.replace(
        location,
        host=host,
        port=port,
        sentinels=(),
        db=0,
        username=given.get("username") or "",
        password=given.get("password") or "",
        credential_provider=None,
        socket_connect_timeout=share,
        socket_timeout=min(location.socket_timeout, share),
        tls={"ssl_cert_reqs": "required", **tls} if given.get("ssl") or tls else None,
    )
    wire = _dial(place, {"host": host, "port": port}, f"the sentinel {host}:{port}")
    try:
        address = _answer(wire, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", location.master_name)
        if not address:
            raise failures.no_master(
                location, "they watch no master of this name; check master_name", misconfigured=True
            )
        if location.min_other_sentinels:
            _require_others(wire, location)
    finally:
        wire.close()
    return address[0].decode(), int(address[1])


def _require_others(wire: Wire, location: Location) -> None:
    flat = _answer(wire, "SENTINEL", "MASTER", location.master_name)
    facts = dict(zip(flat[::2], flat[1::2], strict=False))
    others = int(facts.get(b"num-other-sentinels", 0))
    if others < location.min_other_sentinels:
        raise failures.no_master(
            location,
            f"a sentinel sees {others} others, fewer than min_other_sentinels ({location.min_other_sentinels})",
        )


def _answer(wire: Wire, *command: Any) -> Any:
    reply = wire.exchange(pack(command))
    if isinstance(reply, ReplyError):
        raise failures.of_reply(str(reply), wire.location)
    return reply
