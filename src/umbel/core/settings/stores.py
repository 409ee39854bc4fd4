"""Settings of result stores, Redis and those that umbel does not have yet, and of signed messages."""

from __future__ import annotations

from umbel.core.settings.rows import no_effect, unsupported, works
from umbel.core.settings.setting import Kind, Setting

__all__ = ["ROWS"]

_Row = tuple[str, str, Kind, object, str]

_SQL: tuple[_Row, ...] = (
    ("database_url", "CELERY_RESULT_DBURI", Kind.TEXT, None, "URL of the database."),
    (
        "database_create_tables_at_setup",
        "DATABASE_CREATE_TABLES_AT_SETUP",
        Kind.BOOL,
        True,
        "Create tables at the start.",
    ),
    (
        "database_engine_callback",
        "DATABASE_ENGINE_CALLBACK",
        Kind.ANY,
        None,
        "Function that receives the engine.",
    ),
    (
        "database_engine_options",
        "CELERY_RESULT_ENGINE_OPTIONS",
        Kind.MAPPING,
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "Options of the engine.",
    ),
    (
        "database_short_lived_sessions",
        "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
        Kind.BOOL,
        False,
        "A new session each time.",
    ),
    ("database_table_names", "CELERY_RESULT_DB_TABLENAMES", Kind.MAPPING, None, "Names of the tables."),
    ("database_table_schemas", "DATABASE_TABLE_SCHEMAS", Kind.MAPPING, None, "Schemas of the tables."),
)

_REDIS: tuple[Setting, ...] = (
    works(
        "redis_backend_use_ssl",
        "CELERY_REDIS_BACKEND_USE_SSL",
        Kind.ANY,
        None,
        "Encrypt the connection to a Redis with results: True, or a dict with `ssl_cert_reqs`, `ssl_ca_certs`, "
        "`ssl_certfile`, `ssl_keyfile`. Where broker and results are one URL, `broker_use_ssl` goes before it.",
    ),
    works(
        "redis_backend_credential_provider",
        "",
        Kind.ANY,
        None,
        "Object, class or name of a class that supplies credentials (redis-py's `CredentialProvider`).",
    ),
    works(
        "redis_backend_health_check_interval",
        "",
        Kind.SECONDS,
        None,
        "A connection that was idle for longer is checked before it is used. Unset: 25 seconds.",
    ),
    works("redis_client_name", "", Kind.TEXT, None, "Name that Redis shows for the connections."),
    works(
        "redis_password",
        "CELERY_REDIS_PASSWORD",
        Kind.TEXT,
        None,
        "Password for a Redis with results whose URL has none.",
    ),
    works(
        "redis_username",
        "CELERY_REDIS_USERNAME",
        Kind.TEXT,
        None,
        "User name for a Redis with results whose URL has none.",
    ),
    works(
        "redis_socket_timeout",
        "CELERY_REDIS_SOCKET_TIMEOUT",
        Kind.SECONDS,
        None,
        "Time that Redis has to answer within. Unset: 5 seconds (Celery: 120).",
    ),
    works(
        "redis_socket_connect_timeout",
        "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT",
        Kind.SECONDS,
        None,
        "Time to connect within. Unset: 4 seconds.",
    ),
    works("redis_socket_keepalive", "CELERY_REDIS_SOCKET_KEEPALIVE", Kind.BOOL, True, "TCP keep-alive (Celery: off)."),
    *(
        unsupported(name, old, kind, None, text, do="write it into `result_backend`, as in `redis://host:6379/0`")
        for name, old, kind, text in (
            ("redis_db", "CELERY_REDIS_DB", Kind.INT, "Number of the database."),
            ("redis_host", "CELERY_REDIS_HOST", Kind.TEXT, "Host."),
            ("redis_port", "CELERY_REDIS_PORT", Kind.INT, "Port."),
        )
    ),
    no_effect(
        "redis_max_connections",
        "CELERY_REDIS_MAX_CONNECTIONS",
        Kind.INT,
        None,
        "Most connections.",
        why="a process has one connection for each thread that works, and no pool",
    ),
    no_effect(
        "redis_retry_on_timeout",
        "CELERY_REDIS_RETRY_ON_TIMEOUT",
        Kind.BOOL,
        False,
        "Try again after a time-out.",
        why="workers try again until an outcome is stored, clients as task_publish_retry_policy says",
    ),
)

_CACHE: tuple[_Row, ...] = (
    ("cache_backend", "CELERY_CACHE_BACKEND", Kind.TEXT, None, "URL of the cache."),
    ("cache_backend_options", "CELERY_CACHE_BACKEND_OPTIONS", Kind.MAPPING, {}, "Options of the client."),
)

_CASSANDRA: tuple[_Row, ...] = (
    (
        "cassandra_auth_kwargs",
        "CASSANDRA_AUTH_KWARGS",
        Kind.ANY,
        None,
        "Arguments of the authentication class.",
    ),
    ("cassandra_auth_provider", "CASSANDRA_AUTH_PROVIDER", Kind.TEXT, None, "Authentication class."),
    ("cassandra_bundle_path", "CASSANDRA_BUNDLE_PATH", Kind.TEXT, None, "Secure connection bundle."),
    (
        "cassandra_secure_bundle_path",
        "CASSANDRA_SECURE_BUNDLE_PATH",
        Kind.TEXT,
        None,
        "Secure connection bundle.",
    ),
    ("cassandra_entry_ttl", "CASSANDRA_ENTRY_TTL", Kind.SECONDS, None, "How long a row is kept."),
    ("cassandra_keyspace", "CASSANDRA_KEYSPACE", Kind.TEXT, None, "Keyspace."),
    ("cassandra_options", "CASSANDRA_OPTIONS", Kind.MAPPING, {}, "Options of the cluster."),
    ("cassandra_port", "CASSANDRA_PORT", Kind.ANY, None, "Port."),
    ("cassandra_read_consistency", "CASSANDRA_READ_CONSISTENCY", Kind.TEXT, None, "Consistency of reads."),
    ("cassandra_servers", "CASSANDRA_SERVERS", Kind.NAMES, None, "Hosts."),
    ("cassandra_table", "CASSANDRA_TABLE", Kind.TEXT, None, "Table."),
    ("cassandra_write_consistency", "CASSANDRA_WRITE_CONSISTENCY", Kind.TEXT, None, "Consistency of writes."),
)

_S3: tuple[_Row, ...] = (
    ("s3_access_key_id", "S3_ACCESS_KEY_ID", Kind.TEXT, None, "Access key."),
    ("s3_base_path", "S3_BASE_PATH", Kind.TEXT, None, "Prefix of keys."),
    ("s3_bucket", "S3_BUCKET", Kind.TEXT, None, "Bucket."),
    ("s3_endpoint_url", "S3_ENDPOINT_URL", Kind.TEXT, None, "Endpoint."),
    ("s3_region", "S3_REGION", Kind.TEXT, None, "Region."),
    ("s3_secret_access_key", "S3_SECRET_ACCESS_KEY", Kind.TEXT, None, "Secret key."),
)

_AZURE: tuple[_Row, ...] = (
    ("azureblockblob_base_path", "AZUREBLOCKBLOB_BASE_PATH", Kind.TEXT, "", "Prefix of names."),
    (
        "azureblockblob_connection_timeout",
        "AZUREBLOCKBLOB_CONNECTION_TIMEOUT",
        Kind.SECONDS,
        20,
        "Time to connect within.",
    ),
    ("azureblockblob_container_name", "AZUREBLOCKBLOB_CONTAINER_NAME", Kind.TEXT, "celery", "Container."),
    (
        "azureblockblob_read_timeout",
        "AZUREBLOCKBLOB_READ_TIMEOUT",
        Kind.SECONDS,
        120,
        "Time to answer within.",
    ),
    (
        "azureblockblob_retry_increment_base",
        "AZUREBLOCKBLOB_RETRY_INCREMENT_BASE",
        Kind.INT,
        2,
        "Growth of pauses.",
    ),
    (
        "azureblockblob_retry_initial_backoff_sec",
        "AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC",
        Kind.INT,
        2,
        "First pause.",
    ),
    ("azureblockblob_retry_max_attempts", "AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS", Kind.INT, 3, "Attempts."),
)

_GCS: tuple[_Row, ...] = (
    ("gcs_base_path", "GCS_BASE_PATH", Kind.TEXT, "", "Prefix of names."),
    ("gcs_bucket", "GCS_BUCKET", Kind.TEXT, None, "Bucket."),
    ("gcs_project", "GCS_PROJECT", Kind.TEXT, None, "Project."),
    ("gcs_threadpool_maxsize", "GCS_THREADPOOL_MAXSIZE", Kind.INT, 10, "How many results are read at once."),
    ("gcs_ttl", "GCS_TTL", Kind.SECONDS, 0, "How long an object is kept."),
    ("firestore_project", "FIRESTORE_PROJECT", Kind.TEXT, None, "Project of the counters of chords."),
)

_ELASTICSEARCH: tuple[_Row, ...] = (
    ("elasticsearch_max_retries", "CELERY_ELASTICSEARCH_MAX_RETRIES", Kind.INT, None, "Attempts."),
    (
        "elasticsearch_retry_on_timeout",
        "CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT",
        Kind.BOOL,
        None,
        "Try again after a time-out.",
    ),
    (
        "elasticsearch_save_meta_as_text",
        "CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT",
        Kind.BOOL,
        True,
        "Keep results as text.",
    ),
    ("elasticsearch_timeout", "CELERY_ELASTICSEARCH_TIMEOUT", Kind.SECONDS, None, "Time to answer within."),
)

_COSMOS: tuple[_Row, ...] = (
    ("cosmosdbsql_collection_name", "COSMOSDBSQL_COLLECTION_NAME", Kind.TEXT, "celerycol", "Collection."),
    ("cosmosdbsql_consistency_level", "COSMOSDBSQL_CONSISTENCY_LEVEL", Kind.TEXT, "Session", "Consistency."),
    ("cosmosdbsql_database_name", "COSMOSDBSQL_DATABASE_NAME", Kind.TEXT, "celerydb", "Database."),
    ("cosmosdbsql_max_retry_attempts", "COSMOSDBSQL_MAX_RETRY_ATTEMPTS", Kind.INT, 9, "Attempts."),
    (
        "cosmosdbsql_max_retry_wait_time",
        "COSMOSDBSQL_MAX_RETRY_WAIT_TIME",
        Kind.INT,
        30,
        "Longest pause in seconds.",
    ),
)

_ARANGO: tuple[_Row, ...] = (
    (
        "arangodb_backend_settings",
        "CELERY_ARANGODB_BACKEND_SETTINGS",
        Kind.MAPPING,
        None,
        "Options of the client.",
    ),
)
_COUCHBASE: tuple[_Row, ...] = (
    (
        "couchbase_backend_settings",
        "CELERY_COUCHBASE_BACKEND_SETTINGS",
        Kind.MAPPING,
        None,
        "Options of the client.",
    ),
)
_DYNAMODB: tuple[_Row, ...] = (("dynamodb_endpoint_url", "DYNAMODB_ENDPOINT_URL", Kind.TEXT, None, "Endpoint."),)
_MONGODB: tuple[_Row, ...] = (
    (
        "mongodb_backend_settings",
        "CELERY_MONGODB_BACKEND_SETTINGS",
        Kind.MAPPING,
        None,
        "Options of the client.",
    ),
)

_STORES: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    ("SQLAlchemy", _SQL),
    ("memcached", _CACHE),
    ("Cassandra", _CASSANDRA),
    ("S3", _S3),
    ("Azure blob", _AZURE),
    ("Google Cloud Storage", _GCS),
    ("Elasticsearch", _ELASTICSEARCH),
    ("Cosmos DB", _COSMOS),
    ("ArangoDB", _ARANGO),
    ("Couchbase", _COUCHBASE),
    ("DynamoDB", _DYNAMODB),
    ("MongoDB", _MONGODB),
)

_SECURITY: tuple[_Row, ...] = (
    (
        "security_cert_store",
        "CELERY_SECURITY_CERT_STORE",
        Kind.TEXT,
        None,
        "Directory of trusted certificates.",
    ),
    (
        "security_certificate",
        "CELERY_SECURITY_CERTIFICATE",
        Kind.TEXT,
        None,
        "Certificate that goes with the key.",
    ),
    ("security_digest", "CELERY_SECURITY_DIGEST", Kind.TEXT, "sha256", "Digest of signatures."),
    ("security_key", "CELERY_SECURITY_KEY", Kind.TEXT, None, "Private key that messages are signed with."),
    ("security_key_password", "CELERY_SECURITY_KEY_PASSWORD", Kind.BYTES, None, "Password of the key."),
)


def _rows(rows: tuple[_Row, ...], do: str) -> tuple[Setting, ...]:
    return tuple(unsupported(name, old, kind, default, text, do=do) for name, old, kind, default, text in rows)


def _needs(store: str) -> str:
    return f"it needs the {store} result store, which umbel does not have yet; keep results in SQLite or leave it out"


ROWS: tuple[Setting, ...] = (
    *_REDIS,
    *(row for store, rows in _STORES for row in _rows(rows, _needs(store))),
    *_rows(_SECURITY, "umbel does not sign messages yet; leave it out, and keep `accept_content` at json"),
    unsupported(
        "db_reuse_max",
        "CELERY_DB_REUSE_MAX",
        Kind.INT,
        None,
        "After how many tasks Django's database connections are closed.",
        do="umbel does not look after Django's connections yet; set Django's own CONN_MAX_AGE",
    ),
)
