"""Results that both sides write with another serializer than json."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.kit import Fleet
from tests.servers import RedisServer


@pytest.fixture(scope="module", params=["pickle", "msgpack"])
def fleet(
    request: pytest.FixtureRequest,
    celery_installed: None,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """A fleet whose results are not json."""
    url, folder = redis_server.fresh_url(), tmp_path_factory.mktemp("results-fleet")
    found = Fleet("redis", url, url, folder, INTEROP_RESULT_SERIALIZER=request.param)
    found.celery_worker.wait_ready()
    found.umbel_worker.wait_ready()
    yield found
    found.close()


@pytest.mark.parametrize("runs", ["umbel", "celery"])
def test_both_read_results_and_errors_in_another_serializer(fleet: Fleet, runs: str) -> None:
    value = [1, {"deep": [None, True, 2.5]}, "ü"]
    sent = fleet.send("echo", value, queue=f"to_{runs}")
    expected = {"side": runs, "args": [value], "kwargs": {}}
    assert sent.get(timeout=15) == expected
    assert fleet.outcome(sent.id)["value"] == expected
    failed = fleet.send("fail", "ValueError", "bad", 3, queue=f"to_{runs}")
    with pytest.raises(ValueError, match="bad"):
        failed.get(timeout=15)
    outcome = fleet.outcome(failed.id)
    assert outcome["value"] == {"error": "ValueError", "module": "builtins", "args": ["bad", 3]}
    # What is there stays, whichever serializer wrote it.
    fleet.celery.ask(f"app.backend.store_result({sent.id!r}, 'too late', 'FAILURE')")
    assert fleet.umbel.AsyncResult(sent.id).get(timeout=5) == expected
    again = fleet.send("again", 2, 0.2, queue=f"to_{runs}")
    assert fleet.outcome(again.id)["value"] == 2
