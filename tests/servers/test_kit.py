"""The kit itself: servers answer, die, come back where they were, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import amqp
import pytest
import redis

from tests.servers import RabbitServer, RedisServer, ServerFailedError
from tests.servers.install import program

ROOT = Path(__file__).resolve().parents[2]


def rabbit(url: str) -> amqp.Connection:
    """Connect to a virtual host."""
    place, _, vhost = url.removeprefix("amqp://guest:guest@").partition("/")
    connection = amqp.Connection(place, "guest", "guest", virtual_host=vhost.replace("%2F", "/"), connect_timeout=10)
    connection.connect()
    return connection


def test_a_killed_redis_with_a_log_comes_back_with_its_data_on_the_same_port(redis_installed: None) -> None:
    with RedisServer(aof=True, requirepass="s3:cret") as server:
        client = redis.Redis.from_url(server.url)
        client.set("key", "value")
        server.kill()
        assert not server.running
        server.start()
        assert client.get("key") == b"value"
        client.close()


def test_a_redis_that_cannot_start_shows_its_log(redis_installed: None) -> None:
    server = RedisServer(maxmemory="nonsense")
    with pytest.raises(ServerFailedError, match="maxmemory"):
        server.start()
    server.close()


def test_a_program_that_was_chosen_and_is_none_is_not_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_TEST_REDIS", sys.executable)
    assert program("redis-server") == sys.executable
    monkeypatch.setenv("UMBEL_TEST_REDIS", "/nowhere/valkey-server")
    with pytest.raises(FileNotFoundError, match="UMBEL_TEST_REDIS"):
        program("redis-server")


def test_a_frozen_redis_answers_again_when_it_is_thawed(redis_installed: None) -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url, socket_timeout=0.2) as client:
        client.ping()
        server.freeze()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        server.thaw()
        assert client.ping()


def test_each_test_gets_an_empty_redis_database(redis_server: RedisServer) -> None:
    urls = {redis_server.fresh_url() for _ in range(3)}
    assert len(urls) == 3
    for url in urls:
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0


def test_each_test_gets_an_empty_virtual_host(rabbit_url: str) -> None:
    with rabbit(rabbit_url) as connection:
        channel = connection.channel()
        channel.queue_declare("q", auto_delete=False)
        assert channel.basic_get("q") is None


def test_a_killed_rabbit_comes_back_with_its_durable_messages(rabbit_installed: None) -> None:
    with RabbitServer() as server:
        with rabbit(server.url) as connection:
            channel = connection.channel()
            channel.confirm_select()
            channel.queue_declare("q", durable=True, auto_delete=False)
            channel.basic_publish_confirm(amqp.Message("kept", delivery_mode=2), routing_key="q")
        server.kill()
        server.start()
        with rabbit(server.url) as connection:
            assert connection.channel().basic_get("q").body == "kept"


PROGRAM = """
import os
from tests.servers import RedisServer
server = RedisServer().start()
print(server.pid, server.folder, flush=True)
os.kill(os.getpid(), 9)
"""


def test_servers_die_with_a_killed_test_process(redis_installed: None, wait_until: Callable[..., None]) -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    pid, folder = done.stdout.split()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or not os.path.exists(folder), what="the end of the server")
    wait_until(lambda: not os.path.exists(folder), what="the removal of its folder")


RUN = """
import json, os, sys, tempfile, time
from pathlib import Path
from tests.servers.shared import shared_rabbit
shared_rabbit()
(note,) = Path(tempfile.gettempdir()).glob("umbel-rabbit-*.json")
host = json.loads(note.read_text())["host"]
os.kill({"run": os.getpid(), "host": host}[sys.argv[1]], 9)
"""


@pytest.mark.parametrize("victim", ["run", "host"])
def test_the_rabbit_of_a_run_goes_with_all_its_files(
    victim: str, tmp_path: Path, rabbit_installed: None, wait_until: Callable[..., None]
) -> None:
    command = [sys.executable, "-c", RUN, victim]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    subprocess.run(command, cwd=ROOT, env=environment | {"TMPDIR": str(tmp_path)}, timeout=60, check=False)
    wait_until(lambda: not any(tmp_path.iterdir()), seconds=20, what="the removal of every file")
