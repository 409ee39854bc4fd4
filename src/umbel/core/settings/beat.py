"""Settings about the scheduler and the event monitor, neither of which umbel has yet."""

from __future__ import annotations

from umbel.core.settings.rows import unsupported
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

_BEAT = "umbel has no scheduler yet; start tasks from cron or a systemd timer with `umbel call`"
_EVENTS = "umbel has no event monitor yet"

_SCHEDULE: tuple[Setting, ...] = (
    unsupported("beat_schedule", "CELERYBEAT_SCHEDULE", Kind.MAPPING, {}, "Periodic tasks by name.", do=_BEAT),
    unsupported(
        "beat_schedule_filename",
        "CELERYBEAT_SCHEDULE_FILENAME",
        Kind.TEXT,
        "celerybeat-schedule",
        "File that keeps when periodic tasks ran.",
        do=_BEAT,
    ),
    unsupported(
        "beat_scheduler",
        "CELERYBEAT_SCHEDULER",
        Kind.TEXT,
        "celery.beat:PersistentScheduler",
        "Class of the scheduler.",
        do=_BEAT,
    ),
    unsupported(
        "beat_sync_every",
        "CELERYBEAT_SYNC_EVERY",
        Kind.INT,
        0,
        "Write the file after so many tasks.",
        do=_BEAT,
    ),
    unsupported(
        "beat_max_loop_interval",
        "CELERYBEAT_MAX_LOOP_INTERVAL",
        Kind.SECONDS,
        0,
        "Longest sleep of the scheduler.",
        do=_BEAT,
    ),
    unsupported(
        "beat_cron_starting_deadline",
        "CELERYBEAT_CRON_STARTING_DEADLINE",
        Kind.INT,
        None,
        "How far back in seconds missed runs are made up for.",
        do=_BEAT,
    ),
    unsupported(
        "beat_enable_remote_control",
        "CELERYBEAT_ENABLE_REMOTE_CONTROL",
        Kind.BOOL,
        False,
        "Let the scheduler answer `ping`.",
        do=_BEAT,
        since="Celery 5.7",
    ),
    unsupported(
        "beat_remote_control_max_tick_age",
        "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        Kind.SECONDS,
        None,
        "After which standstill the scheduler no longer answers.",
        do=_BEAT,
        since="Celery 5.7",
    ),
)

_DAEMON_OPTIONS = (
    ("logfile", "Log file"),
    ("pidfile", "File for the process id"),
    ("uid", "User"),
    ("gid", "Group"),
    ("umask", "File mode mask"),
    ("executable", "Python"),
)

_DAEMONS: tuple[Setting, ...] = tuple(
    unsupported(f"{command}_{option}", "", Kind.ANY, None, f"{text} of the {word}.", do=do)
    for command, word, do in (("beat", "scheduler", _BEAT), ("events", "event monitor", _EVENTS))
    for option, text in _DAEMON_OPTIONS
)

ROWS: tuple[Setting, ...] = _SCHEDULE + _DAEMONS
