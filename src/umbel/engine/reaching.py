"""What an engine's error says about the way to its server: not there now, wrong as configured, or neither."""

from __future__ import annotations

import ssl

from umbel.core.errors import EngineBusy, OperationalError, PublishTimeout, StorageFull, Unroutable

__all__ = ["is_misconfigured", "is_unreachable"]

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
            return not isinstance(cause, ssl.SSLError)
        cause = cause.__cause__ or cause.__context__
    return False


def is_misconfigured(error: BaseException) -> bool:
    """Tell whether no waiting helps: wrong password, database, TLS …, as far as the engine can say."""
    if not isinstance(error, OperationalError) or isinstance(error, (EngineBusy, *_ANSWERS)):
        return False
    return bool(getattr(error, "misconfigured", not is_unreachable(error)))
