"""How often a message has gone back to a broker that keeps no count itself: a header that travels with it."""

from __future__ import annotations

import re

import msgspec

from umbel.core import json_types
from umbel.core.errors import DecodeError

__all__ = ["HEADER", "attempt_of", "with_attempt"]

#: The header. Absent means 0: never gone back.
HEADER = "umbel-attempt"

#: Inside a JSON text the quotes would be escaped, so this finds a key.
_search = re.compile(rb'"umbel-attempt"\s*:\s*(\d{1,9})\s*[,}]').search
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def attempt_of(head: bytes) -> int:
    """Return what the header says; 0 where it is missing or no sensible number."""
    found = _search(head)
    return int(found[1]) if found is not None else 0


def with_attempt(head: bytes, attempt: int) -> bytes:
    """Return the head with the header set; a head that cannot be read stays as it is."""
    number = str(attempt).encode()
    try:
        parts = _split(head)
        headers = _split(parts["headers"])
        headers[HEADER] = msgspec.Raw(number)
        parts["headers"] = msgspec.Raw(msgspec.json.encode(headers))
        return msgspec.json.encode(parts)
    except (msgspec.MsgspecError, RecursionError, KeyError):
        pass
    try:
        loose = json_types.loads(head)
        loose["headers"][HEADER] = attempt
        return json_types.dumps(loose)
    except (DecodeError, KeyError, TypeError):
        return head
