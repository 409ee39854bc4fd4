"""Whether anything waits for the end of a task, as far as the body of its message tells without being decoded whole."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["stands_alone"]

#: How umbel, and how Python's own json module in Celery, end a body that nothing follows from.
_ALONE = (
    b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]',
    b', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
)

_read = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, dict[str, Any] | None]).decode


def stands_alone(body: bytes) -> bool:
    """Tell whether it is certain that no callback, chain or chord waits for the task of this body. Never raises.

    False for a body that is compressed or no JSON: what is in there only an executor finds out.
    """
    if body.endswith(_ALONE):
        return True
    try:
        _, _, embed = _read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return not embed or not any(embed.values())
