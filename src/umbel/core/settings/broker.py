"""Settings about the broker, remote control and events."""

from __future__ import annotations

from umbel.core.settings.rows import no_effect, unsupported, works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

_AMQP = "applies to RabbitMQ only"
_NO_POOL = "umbel keeps one connection per process and thread that sends, and no pool"
_PART_OF_URL = "write it into `broker_url`"
_EVENTS = "umbel sends no events yet; leave it as it is"

_URLS: tuple[Setting, ...] = (
    works(
        "broker_url",
        "BROKER_URL",
        Kind.URL,
        "sqlite:///umbel.db",
        "Where messages wait. Several, as a list or joined by `;`, are alternatives: the first that can be reached is "
        "used. Unset: the SQLite file `umbel.db` in the working directory. The "
        "environment variables "
        "`UMBEL_BROKER_URL` and, after it, `CELERY_BROKER_URL` go before what the program says.",
    ),
    works(
        "broker_read_url",
        "BROKER_READ_URL",
        Kind.URL,
        None,
        "Broker that workers consume from. Unset: `broker_url`. Environment: `UMBEL_BROKER_READ_URL`, "
        "`CELERY_BROKER_READ_URL`.",
    ),
    works(
        "broker_write_url",
        "BROKER_WRITE_URL",
        Kind.URL,
        None,
        "Broker that tasks are sent to. Unset: `broker_url`. Environment: `UMBEL_BROKER_WRITE_URL`, "
        "`CELERY_BROKER_WRITE_URL`.",
    ),
    unsupported("broker_transport", "BROKER_TRANSPORT", Kind.TEXT, None, "Kind of broker.", do=_PART_OF_URL),
    unsupported("broker_host", "BROKER_HOST", Kind.TEXT, None, "Host of the broker.", do=_PART_OF_URL),
    unsupported("broker_port", "BROKER_PORT", Kind.INT, None, "Port of the broker.", do=_PART_OF_URL),
    unsupported("broker_user", "BROKER_USER", Kind.TEXT, None, "User name at the broker.", do=_PART_OF_URL),
    unsupported("broker_password", "BROKER_PASSWORD", Kind.TEXT, None, "Password at the broker.", do=_PART_OF_URL),
    unsupported("broker_vhost", "BROKER_VHOST", Kind.TEXT, None, "Virtual host at the broker.", do=_PART_OF_URL),
    works(
        "broker_transport_options",
        "BROKER_TRANSPORT_OPTIONS",
        Kind.MAPPING,
        {},
        "Options of the broker's engine by kombu's names, such as `global_keyprefix` and `priority_steps` of Redis; an "
        "option that it does not know is an error. They may stand in the URL instead, as in "
        "`sqlite:///umbel.db?synchronous=full`.",
    ),
    works(
        "broker_use_ssl",
        "BROKER_USE_SSL",
        Kind.ANY,
        False,
        "Encrypt the connection to the broker: True, or a dict with `ca_certs`, `certfile`, `keyfile`, `cert_reqs` "
        "(Redis: the same with `ssl_` before them). Certificates are verified unless `cert_reqs` says otherwise. "
        "`rediss://` and `amqps://` do the same.",
    ),
    works(
        "broker_failover_strategy",
        "BROKER_FAILOVER_STRATEGY",
        Kind.TEXT,
        None,
        "In which order several brokers are tried: `round-robin` (unset) or `shuffle`. umbel takes no function here.",
        choices=("round-robin", "shuffle"),
    ),
)

_CONNECTION: tuple[Setting, ...] = (
    no_effect(
        "broker_channel_error_retry",
        "BROKER_CHANNEL_ERROR_RETRY",
        Kind.BOOL,
        False,
        "Take errors of an AMQP channel for lost connections.",
        why=_AMQP,
    ),
    works(
        "broker_connection_max_retries",
        "BROKER_CONNECTION_MAX_RETRIES",
        Kind.INT,
        100,
        "How often a worker that starts looks again for a broker that is not there; None or 0: for ever. A worker that "
        "has started never gives up.",
        optional=True,
    ),
    works(
        "broker_connection_retry",
        "BROKER_CONNECTION_RETRY",
        Kind.BOOL,
        True,
        "What `broker_connection_retry_on_startup` is when that is unset. A worker that has started always connects "
        "again.",
    ),
    works(
        "broker_connection_retry_on_startup",
        "BROKER_CONNECTION_RETRY_ON_STARTUP",
        Kind.BOOL,
        None,
        "Wait for a broker that is not there yet when a worker starts; off: end at once and say what is wrong. Unset: "
        "`broker_connection_retry`. A wrong password, vhost or certificate ends the start in any case.",
    ),
    works(
        "broker_connection_timeout",
        "BROKER_CONNECTION_TIMEOUT",
        Kind.SECONDS,
        4.0,
        "Time to connect to Redis or RabbitMQ within.",
        optional=True,
    ),
    works(
        "broker_heartbeat",
        "BROKER_HEARTBEAT",
        Kind.SECONDS,
        None,
        "Seconds between two AMQP heartbeats; 0 turns them off. Unset: 10 for workers (Celery: 120), so that a dead "
        "connection is noticed. Redis needs none.",
    ),
    no_effect(
        "broker_heartbeat_checkrate",
        "BROKER_HEARTBEAT_CHECKRATE",
        Kind.FLOAT,
        3.0,
        "How many times to look within one AMQP heartbeat.",
        why="umbel looks as often as the heartbeat needs",
    ),
    works(
        "broker_login_method",
        "BROKER_LOGIN_METHOD",
        Kind.TEXT,
        None,
        "How to log in to RabbitMQ: PLAIN, AMQPLAIN or EXTERNAL. Unset: what the server offers.",
    ),
    works(
        "broker_native_delayed_delivery_queue_type",
        "BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE",
        Kind.TEXT,
        None,
        "Queue type of the queues that hold delayed messages on RabbitMQ: classic or quorum. Unset: the engine's "
        "choice (Celery: quorum); declared with another type before, they must be deleted first.",
        choices=("classic", "quorum", None),
        since="Celery 5.5",
    ),
    no_effect(
        "broker_pool_acquire_timeout",
        "BROKER_POOL_ACQUIRE_TIMEOUT",
        Kind.SECONDS,
        None,
        "How long to wait for a connection of the pool.",
        why=_NO_POOL,
        since="Celery 5.7",
    ),
    no_effect(
        "broker_pool_limit",
        "BROKER_POOL_LIMIT",
        Kind.INT,
        10,
        "How many connections the pool holds.",
        why=_NO_POOL,
        optional=True,
    ),
)

_MAILBOX = "the embedded engines carry control messages themselves, without exchanges and queues"

_CONTROL: tuple[Setting, ...] = (
    no_effect(
        "control_exchange",
        "CONTROL_EXCHANGE",
        Kind.TEXT,
        "celery",
        "Exchange of control messages.",
        why=_MAILBOX,
    ),
    no_effect(
        "control_queue_durable",
        "CONTROL_QUEUE_DURABLE",
        Kind.BOOL,
        False,
        "Durable queues for control.",
        why=_MAILBOX,
    ),
    no_effect(
        "control_queue_exclusive",
        "CONTROL_QUEUE_EXCLUSIVE",
        Kind.BOOL,
        True,
        "Exclusive queues for control.",
        why=_MAILBOX,
    ),
    no_effect(
        "control_queue_expires",
        "CONTROL_QUEUE_EXPIRES",
        Kind.SECONDS,
        10.0,
        "When an unused queue for control is removed.",
        why=_MAILBOX,
    ),
    no_effect(
        "control_queue_ttl",
        "CONTROL_QUEUE_TTL",
        Kind.SECONDS,
        300.0,
        "How long a control message waits.",
        why=_MAILBOX,
    ),
)

_EVENT: tuple[Setting, ...] = (
    unsupported("event_exchange", "CELERY_EVENT_EXCHANGE", Kind.TEXT, "celeryev", "Exchange of events.", do=_EVENTS),
    unsupported(
        "event_queue_durable",
        "CELERY_EVENT_QUEUE_DURABLE",
        Kind.BOOL,
        False,
        "Durable event queues.",
        do=_EVENTS,
    ),
    unsupported(
        "event_queue_exclusive",
        "CELERY_EVENT_QUEUE_EXCLUSIVE",
        Kind.BOOL,
        True,
        "Exclusive event queues.",
        do=_EVENTS,
    ),
    unsupported(
        "event_queue_expires",
        "CELERY_EVENT_QUEUE_EXPIRES",
        Kind.SECONDS,
        60.0,
        "When an unused event queue is removed.",
        do=_EVENTS,
    ),
    unsupported(
        "event_queue_prefix",
        "CELERY_EVENT_QUEUE_PREFIX",
        Kind.TEXT,
        "celeryev",
        "Prefix of event queues.",
        do=_EVENTS,
    ),
    unsupported("event_queue_ttl", "CELERY_EVENT_QUEUE_TTL", Kind.SECONDS, 5.0, "How long an event waits.", do=_EVENTS),
    unsupported("event_serializer", "CELERY_EVENT_SERIALIZER", Kind.TEXT, "json", "Serializer of events.", do=_EVENTS),
)

ROWS: tuple[Setting, ...] = _URLS + _CONNECTION + _CONTROL + _EVENT
