"""Tasks revoked by their stamps: before they are sent, while they wait, while they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_kit import Crewed, wait


@pytest.fixture
def crewed(tmp_path: Path) -> Iterator[Crewed]:
    made = Crewed(tmp_path)
    made.write("")
    yield made
    made.close()


def stamped(tenant: str) -> dict[str, object]:
    return {"stamped_headers": ["tenant"], "tenant": tenant}


def test_what_waits_and_what_comes_later_with_the_stamp_does_not_run(crewed: Crewed) -> None:
    control = crewed.app.control
    waiting = crewed.send("work", 0, "waiting", **stamped("a"))
    control.revoke_by_stamped_headers({"tenant": ["a", "c"]})
    others = [crewed.send("work", 0, name, **stamped(tenant)) for name, tenant in (("later", "a"), ("c", "c"))]
    fine = crewed.send("work", 0, "fine", **stamped("b"))
    crewed.worker("-c", "1")
    assert fine.get(timeout=20) == "fine"
    wait(lambda: all(one.ready() for one in (waiting, *others)), what="the revoked ones to end")
    assert {one.state for one in (waiting, *others)} == {"REVOKED"}
    assert [note["name"] for note in crewed.notes("begin")] == ["fine"]


def test_what_runs_with_the_stamp_is_killed_on_request(crewed: Crewed) -> None:
    crewed.worker("-c", "2")
    running = crewed.send("work", 60, "running", **stamped("a"))
    other = crewed.send("work", 0.5, "other", **stamped("b"))
    wait(lambda: len(crewed.notes("begin")) == 2, what="both to run")
    (reply,) = crewed.app.control.terminate_by_stamped_headers({"tenant": "a"}, reply=True)
    (answer,) = reply.values()
    assert answer == {"ok": f"terminate: {running.id}"}
    wait(running.ready, what="the killed one to end")
    assert running.state == "REVOKED"
    assert other.get(timeout=20) == "other"
