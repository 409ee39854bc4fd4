"""Commands to workers over the bus, and revoking."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from umbel import Umbel
from umbel.app.control import CONTROL_TOPIC
from umbel.core.errors import NotSupportedError


def serve_one(app: Umbel, heard: list[Any]) -> threading.Thread:
    """Answer one command as a worker would."""
    assert app.bus is not None
    bus, listener = app.bus, app.bus.listen([CONTROL_TOPIC])

    def serve() -> None:
        for _topic, payload in listener.receive(10.0):
            command = json.loads(payload)
            heard.append(command)
            if command["reply_to"]:
                key = command["reply_to"]["routing_key"]
                body = {"ticket": command["ticket"], "reply": {"celery@here": {"ok": "pong"}}}
                bus.send(f"reply:{key}", [json.dumps(body).encode()], time.time())
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_ping_gathers_the_answers_of_workers(app: Umbel) -> None:
    heard: list[Any] = []
    thread = serve_one(app, heard)
    assert app.control.ping(timeout=10.0, limit=1) == [{"celery@here": {"ok": "pong"}}]
    thread.join(10)
    assert heard[0]["method"] == "ping"


def test_inspect_is_none_where_nobody_answers(app: Umbel) -> None:
    assert app.control.inspect(timeout=0.05).active() is None


def test_revoking_ends_a_waiting_task_for_good_and_tells_the_workers(app: Umbel) -> None:
    @app.task(name="job")
    def job() -> None: ...

    heard: list[Any] = []
    thread = serve_one(app, heard)
    result = job.delay()
    app.control.revoke(result.id, terminate=True)
    thread.join(10)
    assert heard[0]["arguments"] == {"task_id": [result.id], "terminate": True, "signal": "SIGTERM"}
    assert result.state == "REVOKED"
    assert app.store is not None
    assert app.store.revoked([result.id]) == {result.id}


def test_purge_counts_what_it_deletes(app: Umbel) -> None:
    app.send_task("x")
    app.send_task("y", countdown=100)
    assert app.control.purge() == 2


def test_commands_that_workers_do_not_know_say_so(app: Umbel) -> None:
    with pytest.raises(NotSupportedError, match="time_limit"):
        app.control.time_limit("x", 1)
    with pytest.raises(NotSupportedError, match="logical clocks"):
        app.control.inspect().clock()
    with pytest.raises(NotSupportedError, match="app.bus"):
        app.control.inspect(connection=object())


def test_a_rate_limit_is_told_to_the_workers(app: Umbel) -> None:
    heard: list[Any] = []
    thread = serve_one(app, heard)
    app.control.rate_limit("proj.add", "10/m", reply=True, timeout=10.0, limit=1)
    thread.join(10.0)
    assert (heard[0]["method"], heard[0]["arguments"]) == (
        "rate_limit",
        {"task_name": "proj.add", "rate_limit": "10/m"},
    )


def test_one_node_named_alone_answers_alone(app: Umbel) -> None:
    thread = serve_one(app, [])
    assert app.control.inspect(destination="celery@here", timeout=10.0).ping() == {"ok": "pong"}
    thread.join(10.0)
