"""What an engine's error says about the way to its server: not there now, wrong as configured, or neither."""

from __future__ import annotations

import errno
import socket
import ssl

from umbel.core.errors import EngineBusy, OperationalError, PublishTimeout, StorageFull, Unroutable

__all__ = ["is_misconfigured", "is_unreachable"]

_AWAY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
#: Answers of a server that is there.
_ANSWERS = (StorageFull, Unroutable, PublishTimeout)


def is_unreachable(error: BaseException) -> bool:
    """Tell whether the server is not there (or not yet, or no more), so that waiting or another server may help."""
    if not isinstance(error, OperationalError) or isinstance(error, _ANSWERS):
        return False
    if hasattr(error, "misconfigured"):
        return not error.misconfigured and isinstance(error, EngineBusy)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return _is_of_the_network(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def _is_of_the_network(error: OSError) -> bool:
    if isinstance(error, ssl.SSLError):
        return False
    return isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)) or error.errno in _AWAY


def is_misconfigured(error: BaseException) -> bool:
    """Tell whether no waiting helps: wrong password, database, TLS …, as far as the engine can say."""
    if not isinstance(error, OperationalError) or isinstance(error, (EngineBusy, *_ANSWERS)):
        return False
    return bool(getattr(error, "misconfigured", not is_unreachable(error)))
