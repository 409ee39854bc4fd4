"""Settings about tasks: how they are sent, routed, run and acknowledged."""

from __future__ import annotations

from umbel.core.settings.rows import unsupported, works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

_QUEUE_TYPES = ("classic", "quorum")

_RUNNING: tuple[Setting, ...] = (
    works(
        "task_acks_late",
        "CELERY_ACKS_LATE",
        Kind.BOOL,
        False,
        "Acknowledge after the task has run instead of when it starts, so that a task whose worker is lost runs again.",
    ),
    works(
        "task_acks_on_failure",
        "CELERY_ACKS_ON_FAILURE",
        Kind.BOOL,
        None,
        "For late acknowledgement: acknowledge a task that failed. False: reject it, and do not put it back. "
        "Unset: `task_acks_on_failure_or_timeout`.",
        since="Celery 5.7",
    ),
    works(
        "task_acks_on_failure_or_timeout",
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        Kind.BOOL,
        True,
        "Both `task_acks_on_failure` and `task_acks_on_timeout`, where these are unset.",
    ),
    works(
        "task_acks_on_timeout",
        "CELERY_ACKS_ON_TIMEOUT",
        Kind.BOOL,
        None,
        "For late acknowledgement: acknowledge a task that met its hard time limit. False: put it back "
        "into its queue. "
        "Unset: `task_acks_on_failure_or_timeout`.",
        since="Celery 5.7",
    ),
    works(
        "task_reject_on_worker_lost",
        "CELERY_REJECT_ON_WORKER_LOST",
        Kind.BOOL,
        None,
        "For late acknowledgement: put a task whose process died back into its queue.",
    ),
    works(
        "task_retry_on_worker_lost",
        "CELERY_RETRY_ON_WORKER_LOST",
        Kind.BOOL,
        False,
        "Send a task whose process died again as a retry, which counts against its `max_retries`.",
        since="Celery 5.7",
    ),
    works("task_time_limit", "CELERYD_TASK_TIME_LIMIT", Kind.SECONDS, None, "Hard time limit.", minimum=0),
    works(
        "task_soft_time_limit",
        "CELERYD_TASK_SOFT_TIME_LIMIT",
        Kind.SECONDS,
        None,
        "Time after which `SoftTimeLimitExceeded` is raised inside the task.",
        minimum=0,
    ),
    works(
        "task_default_rate_limit",
        "CELERY_DEFAULT_RATE_LIMIT",
        Kind.RATE,
        None,
        "How often a task of one name may start in one worker, where the task does not say.",
    ),
    works(
        "task_always_eager",
        "CELERY_ALWAYS_EAGER",
        Kind.BOOL,
        False,
        "Run tasks in the caller instead of sending them.",
    ),
    works(
        "task_eager_propagates",
        "CELERY_EAGER_PROPAGATES_EXCEPTIONS CELERY_EAGER_PROPAGATES",
        Kind.BOOL,
        False,
        "Raise the exception of a task that ran in the caller.",
    ),
    works(
        "task_store_eager_result",
        "CELERY_STORE_EAGER_RESULT",
        Kind.BOOL,
        False,
        "Store the results of tasks that ran in the caller.",
    ),
    works(
        "task_ignore_result",
        "CELERY_IGNORE_RESULT",
        Kind.BOOL,
        False,
        "Store no results, where the task does not say.",
    ),
    works(
        "task_store_errors_even_if_ignored",
        "CELERY_STORE_ERRORS_EVEN_IF_IGNORED",
        Kind.BOOL,
        False,
        "Store failures also of tasks that ignore their results.",
    ),
    works(
        "task_track_started",
        "CELERY_TRACK_STARTED",
        Kind.BOOL,
        False,
        "Store the state STARTED when a task starts.",
    ),
    works(
        "task_remote_tracebacks",
        "CELERY_REMOTE_TRACEBACKS",
        Kind.BOOL,
        False,
        "When `get()` raises the exception of a task, show the traceback of the worker with it.",
    ),
    works(
        "task_annotations",
        "CELERY_ANNOTATIONS",
        Kind.ANY,
        None,
        "Changes to the attributes of tasks: a dict of task names (`*` means every task), an object with "
        "the method "
        "`annotate(task)`, the dotted path of either, or a list of these.",
    ),
    works(
        "task_allow_error_cb_on_chord_header",
        "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
        Kind.BOOL,
        False,
        "Link the error callbacks of a chord to the tasks of its header too; otherwise its body alone has them.",
    ),
)

_SENDING: tuple[Setting, ...] = (
    works("task_serializer", "CELERY_TASK_SERIALIZER", Kind.TEXT, "json", "Serializer of task arguments."),
    works(
        "task_compression",
        "CELERY_MESSAGE_COMPRESSION CELERY_TASK_COMPRESSION",
        Kind.TEXT,
        None,
        "Compression of message bodies: gzip, bzip2, lzma, brotli or zstd.",
    ),
    unsupported(
        "task_protocol",
        "CELERY_TASK_PROTOCOL",
        Kind.INT,
        2,
        "Version of the message protocol that is written. Versions 1 and 2 are read.",
        do="umbel reads versions 1 and 2 and writes version 2 only; leave it at 2",
    ),
    works(
        "task_publish_retry",
        "CELERY_TASK_PUBLISH_RETRY",
        Kind.BOOL,
        True,
        "Try again when a message cannot be sent.",
    ),
    works(
        "task_publish_retry_policy",
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
        Kind.MAPPING,
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "How often and after which pauses sending is tried again: `max_retries`, and `interval_start`, "
        "`interval_step` "
        "and `interval_max` in seconds.",
    ),
    works(
        "task_publish_deadline",
        "",
        Kind.SECONDS,
        10.0,
        "Time within which a message must be stored, with all attempts; after it `PublishTimeout` is raised.",
        since="umbel 0.1",
        minimum=0.001,
    ),
    works(
        "task_repr_maxlevels",
        "CELERY_REPR_MAXLEVELS",
        Kind.INT,
        3,
        "How many levels of nested arguments the short text of a call shows.",
        since="Celery 5.7",
        minimum=0,
    ),
    unsupported(
        "task_send_sent_event",
        "CELERY_SEND_TASK_SENT_EVENT CELERY_TASK_SEND_SENT_EVENT",
        Kind.BOOL,
        False,
        "Send an event for every task that is sent.",
        do="umbel sends no events yet; connect to the signal `after_task_publish`",
    ),
    works(
        "task_default_delivery_mode",
        "CELERY_DEFAULT_DELIVERY_MODE",
        Kind.DELIVERY_MODE,
        2,
        "Delivery mode written into messages. The embedded engines keep every message until it is done.",
    ),
    works(
        "task_default_priority",
        "CELERY_DEFAULT_PRIORITY CELERY_TASK_DEFAULT_PRIORITY",
        Kind.INT,
        None,
        "Priority of messages, where neither call nor task says.",
        minimum=0,
        maximum=255,
    ),
    works(
        "workflow_inline_limit",
        "",
        Kind.INT,
        4096,
        "How many bytes the messages of a workflow may repeat. What would repeat more (the later steps of a "
        "long chain, a large body of a chord) is stored once beside the results, and a small signature that "
        "names it travels in its place. 0: whenever that is smaller. None: never, so that Celery workers run "
        "the workflow without any umbel worker.",
        minimum=0,
        optional=True,
    ),
    works(
        "workflow_queue",
        "",
        Kind.TEXT,
        None,
        "Queue of umbel's own tasks that drive workflows, which every umbel worker consumes besides its own queues. "
        "Unset: `task_default_queue` with `.umbel` behind it. The same for all workers that share a broker and queues.",
    ),
    works(
        "task_inherit_parent_priority",
        "CELERY_INHERIT_PARENT_PRIORITY",
        Kind.BOOL,
        False,
        "Give tasks that a task sends the priority of that task.",
    ),
)

_ROUTING: tuple[Setting, ...] = (
    works(
        "task_default_queue",
        "CELERY_DEFAULT_QUEUE",
        Kind.QUEUE,
        "celery",
        "Queue of tasks that nothing routes elsewhere. Give each application that shares a broker its own.",
    ),
    works(
        "task_default_queue_type",
        "CELERY_DEFAULT_QUEUE_TYPE",
        Kind.TEXT,
        "classic",
        "Queue type that the default queue asks RabbitMQ for.",
        since="Celery 5.5",
        choices=_QUEUE_TYPES,
    ),
    works(
        "task_default_exchange",
        "CELERY_DEFAULT_EXCHANGE",
        Kind.TEXT,
        None,
        "Exchange of the default queue. Unset: the queue's name.",
    ),
    works(
        "task_default_exchange_type",
        "CELERY_DEFAULT_EXCHANGE_TYPE",
        Kind.TEXT,
        "direct",
        "Type of the default exchange.",
        choices=("direct", "topic", "fanout"),
    ),
    works(
        "task_default_routing_key",
        "CELERY_DEFAULT_ROUTING_KEY",
        Kind.TEXT,
        None,
        "Routing key of the default queue. Unset: the queue's name.",
    ),
    works(
        "task_queues",
        "CELERY_QUEUES",
        Kind.QUEUES,
        None,
        "Queues that a worker consumes. Unset: the default queue.",
    ),
    works(
        "task_routes",
        "CELERY_ROUTES",
        Kind.ANY,
        None,
        "Which task goes to which queue: a dict of task names or patterns, a list of such pairs, a "
        "function, the dotted path "
        "of one, or a list of these. The first that knows a task wins.",
    ),
    works(
        "task_create_missing_queues",
        "CELERY_CREATE_MISSING_QUEUES",
        Kind.BOOL,
        True,
        "Make a queue that is named but not in `task_queues`. False: sending to it raises `QueueNotFound`.",
    ),
    works(
        "task_create_missing_queue_type",
        "CELERY_CREATE_MISSING_QUEUE_TYPE",
        Kind.TEXT,
        "classic",
        "Queue type that queues made so ask RabbitMQ for.",
        since="Celery 5.6",
        choices=_QUEUE_TYPES,
    ),
    works(
        "task_create_missing_queue_exchange_type",
        "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE",
        Kind.TEXT,
        None,
        "Exchange type of queues made so. Unset: direct.",
        since="Celery 5.6",
        choices=("direct", "topic", "fanout"),
    ),
    works(
        "task_queue_max_priority",
        "CELERY_QUEUE_MAX_PRIORITY CELERY_TASK_QUEUE_MAX_PRIORITY",
        Kind.INT,
        None,
        "Highest priority (`x-max-priority`) that queues ask RabbitMQ for, where they do not say.",
        minimum=0,
        maximum=255,
    ),
)

ROWS: tuple[Setting, ...] = _RUNNING + _SENDING + _ROUTING
