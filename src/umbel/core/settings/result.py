"""Settings about results."""

from __future__ import annotations

from datetime import timedelta

from umbel.core.settings.rows import no_effect, unsupported, works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

_OUTCOME_WAITS = (
    "a worker tries to store an outcome for as long as it holds the lease, and after that another worker has it"
)
_CHORDS = "a chord is counted in the store as its members end, and whoever completes it goes on: nothing is polled for"
_RPC = "results that travel as messages (`rpc://`) go through the default exchange and are kept on RabbitMQ's disk"

ROWS: tuple[Setting, ...] = (
    works(
        "result_backend",
        "CELERY_RESULT_BACKEND",
        Kind.URL,
        None,
        "Where results are kept. Unset: where `broker_url` points; on RabbitMQ, which keeps none, that is `rpc://`: "
        "results are messages to the process that sent the task, of which the newest 10,000 unread ones are kept. "
        '"disabled" (or "disabled://") keeps no results, as Celery does when it is unset. The environment variables '
        "`UMBEL_RESULT_BACKEND` and, after it, `CELERY_RESULT_BACKEND` go before what the program says.",
    ),
    works(
        "result_expires",
        "CELERY_TASK_RESULT_EXPIRES CELERY_RESULT_EXPIRES",
        Kind.SECONDS,
        timedelta(days=1),
        "How long a result is kept, and what `retry_failed` goes on from; None or 0 keeps them for ever.",
        optional=True,
        minimum=0,
    ),
    works(
        "result_extended",
        "CELERY_RESULT_EXTENDED",
        Kind.BOOL,
        False,
        "Keep name, arguments, worker, retries and queue of the task with its result.",
    ),
    works("result_serializer", "CELERY_RESULT_SERIALIZER", Kind.TEXT, "json", "Serializer of results."),
    works(
        "result_compression",
        "CELERY_RESULT_COMPRESSION",
        Kind.TEXT,
        None,
        "Compression of results: gzip, bzip2, lzma, brotli or zstd.",
        since="Celery 5.7",
    ),
    works(
        "result_max_bytes",
        "",
        Kind.INT,
        64 * 1024 * 1024,
        "Largest result that is stored, in bytes; the task of a larger one fails with `BackendStoreError`.",
        since="umbel 0.1",
        minimum=1024,
    ),
    unsupported(
        "result_failure_expires",
        "CELERY_RESULT_FAILURE_EXPIRES",
        Kind.SECONDS,
        None,
        "How long the result of a failed task is kept.",
        do="set `result_expires`, which holds for all results",
        since="Celery 5.7",
    ),
    works(
        "result_backend_transport_options",
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
        Kind.MAPPING,
        {},
        "Options of the result store's engine by Celery's names, such as `global_keyprefix` of Redis.",
    ),
    unsupported(
        "override_backends",
        "",
        Kind.MAPPING,
        {},
        "Classes of result stores by name.",
        do="umbel takes no store classes of your own yet; leave it out",
    ),
    unsupported(
        "result_cache_max",
        "CELERY_MAX_CACHED_RESULTS",
        Kind.INT,
        -1,
        "How many results a client remembers; -1 means none.",
        do="keep the result object: it remembers its own result",
        optional=True,
    ),
    no_effect(
        "result_chord_expires",
        "CELERY_RESULT_CHORD_EXPIRES",
        Kind.SECONDS,
        None,
        "How long the counters of a chord are kept.",
        why="they are kept until its header has ended, however long that takes",
        since="Celery 5.7",
    ),
    no_effect(
        "result_chord_join_timeout",
        "CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        Kind.SECONDS,
        3.0,
        "Time to collect the results of a chord within.",
        why=_CHORDS,
    ),
    no_effect(
        "result_chord_retry_interval",
        "CELERY_RESULT_CHORD_RETRY_INTERVAL",
        Kind.SECONDS,
        1.0,
        "How often to look whether a chord is complete.",
        why=_CHORDS,
    ),
    no_effect(
        "result_backend_always_retry",
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        Kind.BOOL,
        False,
        "Try again when the store fails.",
        why=_OUTCOME_WAITS,
    ),
    no_effect(
        "result_backend_base_sleep_between_retries_ms",
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        Kind.INT,
        10,
        "First pause between such attempts, in milliseconds.",
        why=_OUTCOME_WAITS,
    ),
    no_effect(
        "result_backend_max_sleep_between_retries_ms",
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        Kind.INT,
        10000,
        "Longest pause between such attempts, in milliseconds.",
        why=_OUTCOME_WAITS,
    ),
    no_effect(
        "result_backend_max_retries",
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
        Kind.FLOAT,
        float("inf"),
        "How many such attempts.",
        why=_OUTCOME_WAITS,
    ),
    no_effect(
        "result_backend_thread_safe",
        "CELERY_RESULT_BACKEND_THREAD_SAFE",
        Kind.BOOL,
        False,
        "Share one store between threads.",
        why="umbel's stores are safe to share between threads and always shared",
    ),
    no_effect(
        "result_exchange",
        "CELERY_RESULT_EXCHANGE",
        Kind.TEXT,
        "celeryresults",
        "Exchange of results.",
        why=_RPC,
    ),
    no_effect(
        "result_exchange_type",
        "CELERY_RESULT_EXCHANGE_TYPE",
        Kind.TEXT,
        "direct",
        "Type of that exchange.",
        why=_RPC,
    ),
    no_effect(
        "result_persistent",
        "CELERY_RESULT_PERSISTENT",
        Kind.BOOL,
        None,
        "Keep such messages on disk.",
        why=_RPC,
    ),
)
