"""The limits that hold for everything read from outside: one frozen value, checked before anything is
decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may cost the process that reads it.

    The defaults are wide enough for programs that move over from Celery, which knows no limits at all.

    message_bytes: size of one message (head and body each) as it travels, and of a body before it is sent.
    headers_bytes: size of the head, which every consumer decodes.
    name_length, id_length: characters in a task name, in any id and in names of queues and exchanges.
    depth: lists and mappings inside each other.
    int_digits: decimal digits of one number (Python's own default for text to int).
    decompressed_bytes: size of a body after decompression.
    decompressed_ratio: decompressed size over compressed size, looked at only above `ratio_free_bytes`,
    because small repetitive bodies compress very well and cost nothing.
    """

    message_bytes: int = 16 * 1024 * 1024
    headers_bytes: int = 64 * 1024
    name_length: int = 255
    id_length: int = 255
    depth: int = 100
    int_digits: int = 4300
    decompressed_bytes: int = 64 * 1024 * 1024
    decompressed_ratio: int = 100
    ratio_free_bytes: int = 1024 * 1024


DEFAULT_LIMITS = Limits()
