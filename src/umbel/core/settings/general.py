"""Settings about content, time and what is imported."""

from __future__ import annotations

from umbel.core.settings.rows import works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

ROWS: tuple[Setting, ...] = (
    works(
        "accept_content",
        "CELERY_ACCEPT_CONTENT",
        Kind.NAMES,
        ("json",),
        "Serializers, by name or content type, that may be decoded; a message of any other kind is quarantined.",
    ),
    works(
        "result_accept_content",
        "CELERY_RESULT_ACCEPT_CONTENT RESULT_ACCEPT_CONTENT",
        Kind.NAMES,
        None,
        "The same for results. Unset: `accept_content`.",
    ),
    works(
        "enable_utc",
        "ENABLE_UTC CELERY_ENABLE_UTC",
        Kind.BOOL,
        True,
        "Write times in messages as UTC. False: in the local time zone, or in `timezone` where that is set.",
    ),
    works(
        "timezone",
        "CELERY_TIMEZONE",
        Kind.TIMEZONE,
        None,
        "Time zone in which times without one are read. Unset: UTC, or the machine's zone if `enable_utc` is off.",
    ),
    works(
        "imports",
        "CELERY_IMPORTS",
        Kind.NAMES,
        (),
        "Modules that a worker imports when it starts, before those of `include`.",
    ),
    works(
        "include",
        "CELERY_INCLUDE",
        Kind.NAMES,
        (),
        "Further modules that a worker imports when it starts; `Umbel(include=…)` and `-I` add to it.",
    ),
    works(
        "message_max_bytes",
        "",
        Kind.INT,
        16 * 1024 * 1024,
        "Largest message body that is sent or read, in bytes, as it travels and after it is decompressed.",
        since="umbel 0.1",
        minimum=1024,
    ),
    works(
        "message_max_depth",
        "",
        Kind.INT,
        100,
        "How deep lists and dicts may be nested in a message.",
        since="umbel 0.1",
        minimum=1,
    ),
)
