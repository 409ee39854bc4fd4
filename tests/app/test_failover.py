"""Several brokers, one to read from, and what settings about connections mean to the engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import RedisServer
from umbel import Umbel
from umbel.app.connections import backend_options, broker_options, shared_options
from umbel.core.errors import ImproperlyConfigured, NotSupportedError, OperationalError
from umbel.core.head_reader import reply_to_of
from umbel.core.message import Record
from umbel.engine.seam import Lease

MakeApp = Callable[..., Umbel]
#: Nobody listens on port 1.
NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
def pair(redis_installed: None) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers that may be killed."""
    with RedisServer() as first, RedisServer() as second:
        yield first, second


@pytest.fixture
def make_app() -> Iterator[Callable[..., Umbel]]:
    """Make apps that are closed after the test."""
    made: list[Umbel] = []

    def make(**settings: Any) -> Umbel:
        made.append(Umbel("failing", set_as_current=False, **settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


def names_of(app: Umbel, count: int = 10) -> list[str]:
    deliveries = app.broker.lease(Lease(("celery",), "test", count, 30.0), time.time())
    return [delivery.task for delivery in deliveries]


@pytest.mark.parametrize("join", [list, ";".join])
def test_a_broker_that_cannot_be_reached_is_left_out(make_app: MakeApp, redis_url: str, join: Any) -> None:
    app = make_app(broker_url=join([NOBODY, redis_url]))
    app.send_task("one")
    assert names_of(app) == ["one"]


def test_shuffled_brokers_are_tried_until_one_answers(make_app: MakeApp, redis_url: str) -> None:
    for _ in range(4):
        app = make_app(broker_url=[NOBODY, redis_url, NOBODY], broker_failover_strategy="shuffle")
        app.send_task("one")
    assert names_of(make_app(broker_url=redis_url)) == ["one"] * 4


def test_when_a_broker_goes_away_publishing_goes_on_at_the_next(
    make_app: MakeApp, pair: tuple[RedisServer, RedisServer]
) -> None:
    first, second = pair
    app = make_app(broker_url=f"{first.url};{second.url}")
    app.send_task("before")
    first.kill()
    app.send_task("after")
    assert names_of(make_app(broker_url=second.url)) == ["after"]


def test_leases_of_a_broker_that_was_left_are_lost(make_app: MakeApp, pair: tuple[RedisServer, RedisServer]) -> None:
    first, second = pair
    app = make_app(broker_url=[first.url, second.url])
    app.send_task("one")
    broker, lease = app.broker, Lease(("celery",), "test", 10, 30.0)
    (held,) = broker.lease(lease, time.time())
    first.kill()
    app.send_task("two")
    assert broker.start("test", [(held.tag, held.token, 1)], time.time()) == [held.tag]
    assert not broker.extend("test", 30.0, time.time())
    with pytest.raises(OperationalError, match="starts afresh"):
        broker.lease(lease, time.time())
    assert [item.task for item in broker.lease(lease._replace(owner="afresh"), time.time())] == ["two"]


def test_with_no_broker_left_the_error_tells_the_addresses_and_no_password(make_app: MakeApp) -> None:
    app = make_app(broker_url=["redis://:secret@127.0.0.1:1/0", "redis://:secret@127.0.0.1:2/0"])
    app.conf.task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2.* in 2 attempts") as raised:
        app.send_task("one")
    assert "secret" not in str(raised.value)


def test_alternatives_are_of_one_kind(make_app: MakeApp) -> None:
    with pytest.raises(ImproperlyConfigured, match="all be Redis or all RabbitMQ"):
        _ = make_app(broker_url=[NOBODY, "amqp://127.0.0.1:1//"]).broker
    with pytest.raises(ImproperlyConfigured, match="all be Redis or all RabbitMQ"):
        _ = make_app(broker_url="sqlite:///a.db;sqlite:///b.db").broker


def test_rabbitmq_takes_the_first_address_that_answers(make_app: MakeApp, rabbit_url: str) -> None:
    app = make_app(broker_url=f"amqp://127.0.0.1:1/;{rabbit_url}")
    app.send_task("one")
    other = make_app(broker_url=rabbit_url)
    assert other.broker.depth(["celery"], time.time())["celery"].ready == 1


def test_messages_are_sent_to_one_broker_and_consumed_from_another(
    make_app: MakeApp, redis_server: RedisServer
) -> None:
    reading, writing = redis_server.fresh_url(), redis_server.fresh_url()
    app = make_app(broker_read_url=reading, broker_write_url=writing)
    app.send_task("out")
    assert names_of(app) == []
    assert names_of(make_app(broker_url=writing)) == ["out"]
    make_app(broker_url=reading).send_task("in")
    assert names_of(app) == ["in"]


def test_results_as_messages_need_a_broker_that_carries_them(make_app: MakeApp, redis_url: str) -> None:
    with pytest.raises(NotSupportedError, match="result_backend"):
        _ = make_app(broker_url=redis_url, result_backend="rpc://").store


def test_results_of_rabbitmq_are_messages_unless_told_where(make_app: MakeApp, rabbit_url: str, redis_url: str) -> None:
    app = make_app(broker_url=rabbit_url)
    assert app.store is not None
    assert app.engine.replies is not None
    app.conf.result_backend = redis_url
    assert app.store is not None
    assert app.engine.replies is None
    assert app.engine.atomic is None
    app.conf.result_backend = "disabled"
    assert app.store is None
    assert app.engine.replies is None
    app.send_task("one")
    app.conf.result_backend = "amqp://elsewhere//"
    with pytest.raises(ImproperlyConfigured, match="rpc://"):
        _ = app.store


def test_results_as_messages_come_where_messages_are_consumed_from(make_app: MakeApp, rabbit_server: Any) -> None:
    reading, writing = rabbit_server.fresh_url(), rabbit_server.fresh_url()
    app = make_app(broker_read_url=reading, broker_write_url=writing, result_backend="rpc://")
    result = app.send_task("out")
    (there,) = make_app(broker_url=writing).broker.lease(Lease(("celery",), "test", 1, 30.0), time.time(), 10.0)
    record = Record(result.id, "SUCCESS", b'{"status":"SUCCESS","result":3}', reply_to=reply_to_of(there.head))
    store = make_app(broker_url=reading).store
    assert store is not None
    store.put([record], time.time())
    assert result.get(timeout=10) == 3


def test_settings_of_connections_become_options_of_the_engine(make_app: MakeApp) -> None:
    app = make_app(
        broker_connection_timeout=2.5,
        broker_heartbeat=30,
        broker_login_method="EXTERNAL",
        broker_use_ssl={"ca_certs": "/ca.pem"},
        broker_transport_options={"heartbeat": 20},
    )
    assert broker_options(app.conf, "amqp://h//") == {
        "connect_timeout": 2.5,
        "heartbeat": 20,
        "login_method": "EXTERNAL",
        "ssl": {"ca_certs": "/ca.pem"},
        "accept_content": ("json",),
    }
    assert broker_options(app.conf, "redis://h/0")["socket_connect_timeout"] == 2.5
    with pytest.raises(ImproperlyConfigured, match="broker_use_ssl"):
        broker_options(app.conf, "sqlite:///x.db")


def test_settings_of_results_in_redis_become_options_of_its_engine(make_app: MakeApp) -> None:
    app = make_app(
        redis_socket_timeout=7,
        redis_password="pw",
        redis_backend_use_ssl={"ssl_cert_reqs": "none"},
        result_backend_transport_options={"global_keyprefix": "r"},
        broker_transport_options={"global_keyprefix": "b"},
    )
    mine = {"socket_timeout": 7.0, "password": "pw", "ssl": {"ssl_cert_reqs": "none"}}
    assert backend_options(app.conf, "redis://h/0") == {**mine, "global_keyprefix": "r"}
    assert shared_options(app.conf, "redis://h/0") == {
        **mine,
        "accept_content": ("json",),
        "global_keyprefix": "b",
        "result_global_keyprefix": "r",
    }
    assert backend_options(app.conf, "sqlite:///x.db") == {"global_keyprefix": "r"}


def test_nothing_is_passed_on_that_nobody_has_set_but_what_may_be_read(make_app: MakeApp) -> None:
    app = make_app()
    accepted = {"accept_content": ("json",)}
    assert broker_options(app.conf, "amqp://h//") == broker_options(app.conf, "redis://h/0") == accepted
    assert broker_options(app.conf, "sqlite:///x.db") == {}
    assert backend_options(app.conf, "redis://h/0") == {}
