"""A workflow whose tasks lost their processes goes on from there, with real workers."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.process.lab import Lab
from umbel import chain, chord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


def test_a_chord_whose_members_lost_their_processes_completes_when_they_run_again(broker_lab: Lab) -> None:
    tasks: Any = broker_lab.app.tasks
    broker_lab.worker("-c", "2")
    members = [tasks["lab.die"].s(signal.SIGKILL, 1), tasks["lab.work"].s(0.0), tasks["lab.die"].s(signal.SIGKILL, 1)]
    collect = tasks["lab.collect"]
    result = chain(chord(members, collect.s(), app=broker_lab.app), collect.s(), app=broker_lab.app)()
    body = result.parent
    assert broker_lab.wait_states([result.id, body.id], 40)[result.id].state == "FAILURE"
    assert result.retry_failed() == [body.parent[0].id, body.parent[2].id]
    ended = broker_lab.wait_states([result.id], 40)[result.id]
    assert ended.state == "SUCCESS", ended
    assert ended.value == [one.get(timeout=5) for one in body.parent]
    runs = [broker_lab.journal.ids("start").count(one.id) for one in (*body.parent, body, result)]
    assert runs == [2, 1, 2, 1, 1]
