"""The first words with a broker: what is wrong ends the worker, what is not there yet is waited for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import RedisServer
from umbel import Umbel
from umbel.core.errors import OperationalError, StorageFull
from umbel.worker.first_contact import reach
from umbel.worker.options import WorkerOptions

OPTIONS = WorkerOptions(hostname="kit@host", concurrency=1)
MakeApp = Callable[..., Umbel]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    made: list[Umbel] = []

    def make(url: str, **settings: Any) -> Umbel:
        made.append(Umbel("kit", set_as_current=False, broker=url, changes=settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


def never(_seconds: float) -> None:
    pytest.fail("it waited")


def test_a_broker_that_is_not_there_yet_is_waited_for(
    make_app: MakeApp, redis_installed: None, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as server:
        server.stop()
        pauses: list[float] = []

        def third_time_lucky(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                server.start()

        with caplog.at_level(logging.WARNING):
            reach(make_app(server.url), OPTIONS, sleep=third_time_lucky)
        assert len(pauses) == 3
        assert pauses[0] < pauses[2]
        assert "Waiting for the broker" in caplog.text
        assert "can be used again" in caplog.text


@pytest.mark.parametrize(
    ("settings", "pauses"),
    [
        ({"broker_connection_retry_on_startup": False}, 0),
        ({"broker_connection_retry": False}, 0),
        ({"broker_connection_max_retries": 2}, 2),
    ],
)
def test_how_long_is_a_matter_of_settings(make_app: MakeApp, settings: dict[str, Any], pauses: int) -> None:
    waited: list[float] = []
    with pytest.raises(OperationalError, match="127.0.0.1:1"):
        reach(make_app("redis://127.0.0.1:1/0", **settings), OPTIONS, sleep=waited.append)
    assert len(waited) == pauses


def test_a_wrong_password_ends_the_worker_at_once_and_is_not_shown(make_app: MakeApp, redis_installed: None) -> None:
    with (
        RedisServer(requirepass="right") as server,
        pytest.raises(OperationalError, match="refuses user name or password") as raised,
    ):
        reach(make_app(server.url.replace(":right@", ":wrong@")), OPTIONS, sleep=never)
    assert "wrong@" not in str(raised.value)


def test_a_database_that_does_not_exist_ends_the_worker_at_once(make_app: MakeApp, redis_installed: None) -> None:
    with RedisServer(databases=2) as server, pytest.raises(OperationalError, match="has no database 7"):
        reach(make_app(server.url_for(7)), OPTIONS, sleep=never)


def test_a_server_that_says_nothing_to_tls_is_told_of(make_app: MakeApp, redis_url: str) -> None:
    app = make_app(
        redis_url.replace("redis://", "rediss://"),
        broker_connection_retry_on_startup=False,
        broker_connection_timeout=0.3,
    )
    with pytest.raises(OperationalError, match="TLS"):
        reach(app, OPTIONS, sleep=never)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("guest:guest", "guest:secret"), "wrong user name or password"),
        (("/", "/nowhere"), "there is no vhost 'nowhere'"),
        (("amqp://", "amqps://"), "TLS"),
    ],
)
def test_what_is_wrong_with_a_rabbitmq_url_ends_the_worker_at_once(
    make_app: MakeApp, rabbit_url: str, change: tuple[str, str], words: str
) -> None:
    url = f"{rabbit_url.rpartition('/')[0]}{change[1]}" if change[0] == "/" else rabbit_url.replace(*change)
    with pytest.raises(OperationalError, match=words) as raised:
        reach(make_app(url), OPTIONS, sleep=never)
    assert "secret" not in str(raised.value)


def test_a_result_store_that_is_wrong_ends_the_worker_too(
    make_app: MakeApp, redis_url: str, redis_installed: None
) -> None:
    with RedisServer(requirepass="right") as server, pytest.raises(OperationalError, match="asks for a password"):
        reach(make_app(redis_url, result_backend=f"redis://127.0.0.1:{server.port}/0"), OPTIONS, sleep=never)


def test_what_a_server_without_a_journal_means_is_said_once(
    make_app: MakeApp, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reach(make_app(redis_url), OPTIONS, sleep=never)
    assert caplog.text.count("appendonly") >= 1
    assert sum("appendonly" in record.getMessage() for record in caplog.records) == 1


def test_a_full_server_is_no_reason_to_stay_away_since_workers_empty_it(
    make_app: MakeApp, redis_installed: None, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(maxmemory=1, maxmemory_policy="noeviction") as server:
        app = make_app(server.url, task_publish_retry=False)
        with pytest.raises(StorageFull):
            app.send_task("one")
        with caplog.at_level(logging.WARNING):
            reach(app, OPTIONS, sleep=never)
        assert "raise maxmemory" in caplog.text
