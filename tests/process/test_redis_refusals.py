"""Redis refuses: full memory, a replica, failing snapshots, lost scripts and data. No worker ends for any of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.process.checker import Rules
from tests.process.conftest import Opener
from tests.process.deployments import on_redis
from tests.process.lab import Lab, Worker, wait
from tests.servers import RedisServer
from tests.servers.process import free_port
from umbel.core.errors import OperationalError

pytestmark = pytest.mark.timeout(90)

PUBLISH_LIMIT = 14.0
RECOVERY = 30.0


def refused(lab: Lab) -> str:
    """Send a task that cannot be stored; return what the error says."""
    began = time.monotonic()
    with pytest.raises(OperationalError) as raised:
        lab.send("lab.work_late", 0.0)
    assert time.monotonic() - began < PUBLISH_LIMIT
    return str(raised.value)


def survives(lab: Lab, worker: Worker, consumer: int) -> None:
    """Check that the worker is the one it was and works again."""
    lab.wait_states([lab.send("lab.work_late", 0.0)], RECOVERY)
    assert worker.process.poll() is None
    assert worker.consumer() == consumer


def under_way(lab: Lab) -> tuple[Worker, int, list[str]]:
    """Start a worker that has a while to go."""
    worker = lab.worker("-c", "1")
    ids = lab.send_many("lab.work_late", 40, 0.05)
    lab.wait_progress(5)
    return worker, worker.consumer(), ids


def test_a_full_redis_is_waited_for_and_senders_are_told(own_redis_lab: Lab, own_redis: RedisServer) -> None:
    lab = own_redis_lab
    worker, consumer, ids = under_way(lab)
    with lab.cut("full"):
        own_redis.ask("CONFIG", "SET", "maxmemory", "1")
        assert "maxmemory" in refused(lab) or "memory" in refused(lab)
        wait(lambda: "memory" in worker.text(), 15, "the worker's complaint")
        own_redis.ask("CONFIG", "SET", "maxmemory", "0")
        lab.wait_states(ids, RECOVERY)
    assert lab.prove(Rules(late=True)).duplicated == 0
    survives(lab, worker, consumer)


def test_a_replica_that_takes_no_writes_is_waited_for(own_redis_lab: Lab, own_redis: RedisServer) -> None:
    lab = own_redis_lab
    worker, consumer, ids = under_way(lab)
    with lab.cut("replica"):
        own_redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        assert "replica" in refused(lab)
        wait(lambda: "replica" in worker.text(), 15, "the worker's complaint")
        own_redis.ask("REPLICAOF", "NO", "ONE")
        lab.wait_states(ids, RECOVERY)
    assert lab.prove(Rules(late=True)).duplicated == 0
    survives(lab, worker, consumer)


@pytest.fixture
def snapshots(redis_installed: None) -> Iterator[RedisServer]:
    with RedisServer(enable_protected_configs="yes") as server:
        yield server


def test_a_redis_whose_snapshots_fail_is_waited_for(snapshots: RedisServer, open_lab: Opener) -> None:
    lab = open_lab(on_redis(snapshots.url, snapshots))
    worker, consumer, ids = under_way(lab)
    with lab.cut("snapshots"):
        # Nothing can be written there, whoever one is.
        snapshots.ask("CONFIG", "SET", "dir", "/proc")
        snapshots.ask("CONFIG", "SET", "save", "1 1")
        wait(lambda: "MISCONF" in snapshots.ask("SET", "probe", "1"), 20, "a snapshot to fail")
        assert "snapshot" in refused(lab) or "MISCONF" in refused(lab)
        snapshots.ask("CONFIG", "SET", "dir", str(snapshots.folder))
        snapshots.ask("CONFIG", "SET", "save", "")
        snapshots.ask("BGSAVE")
        lab.wait_states(ids, RECOVERY)
    snapshots.ask("DEL", "probe")
    assert lab.prove(Rules(late=True)).duplicated == 0
    survives(lab, worker, consumer)


def test_scripts_that_redis_has_forgotten_are_loaded_again(redis_lab: Lab, redis_server: RedisServer) -> None:
    lab = redis_lab
    worker = lab.worker()
    load = lab.load("lab.work_late", shortest=0.0, longest=0.01)
    for _ in range(5):
        lab.wait_progress(10)
        redis_server.ask("SCRIPT", "FLUSH")
    load.stop()
    assert lab.prove(Rules(late=True)).duplicated == 0
    assert worker.process.poll() is None


def test_a_database_emptied_under_a_worker_ends_nobody(own_redis_lab: Lab, own_redis: RedisServer) -> None:
    lab = own_redis_lab
    worker, consumer, _ids = under_way(lab)
    own_redis.ask("FLUSHALL")
    more = [lab.send("lab.work", 0.0) for _ in range(5)]
    lab.wait_states(more, RECOVERY)
    late = lab.send_many("lab.work_late", 5, 0.0)
    lab.wait_states(late, RECOVERY)
    assert worker.process.poll() is None
    assert worker.consumer() == consumer


def test_connections_that_redis_kills_are_made_again(own_redis_lab: Lab, own_redis: RedisServer) -> None:
    lab = own_redis_lab
    worker = lab.worker()
    load = lab.load("lab.work_late", shortest=0.0, longest=0.01, patient=True)
    with lab.cut("killed"):
        for _ in range(6):
            lab.wait_progress(15)
            for kind in ("normal", "pubsub"):
                own_redis.ask("CLIENT", "KILL", "TYPE", kind)
        lab.wait_progress(15)
    load.stop()
    lab.prove(Rules(late=True))
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"appendonly": "no"}, "appendonly"), ({"maxmemory": "50mb", "maxmemory_policy": "allkeys-lru"}, "allkeys-lru")],
    ids=["no log", "eviction"],
)
def test_a_worker_says_at_its_start_what_redis_may_lose(
    redis_installed: None, open_lab: Opener, settings: dict[str, str], words: str
) -> None:
    with RedisServer(**settings) as server:
        lab = open_lab(on_redis(server.url, server))
        worker = lab.worker("-c", "1")
        wait(lambda: words in worker.text(), 5, f"a word about {words}")
