"""Messages that a worker cannot run: malformed ones, tasks of other apps, tasks that were revoked."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
import time
from typing import Any

import pytest

from tests.process.checker import Rules
from tests.process.foreign import BROKEN
from tests.process.lab import Lab, wait
from umbel.app.ids import new_id
from umbel.core.message import Message

pytestmark = pytest.mark.timeout(60)


def altered(head: bytes, path: str, value: Any) -> bytes:
    """Return the head with one field replaced, or taken out (value ...)."""
    envelope = json.loads(head)
    *way, last = path.split(".")
    place = envelope
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(envelope).encode()


HEADS: dict[str, bytes | tuple[str, Any]] = {
    **BROKEN,
    "headers a list": ("headers", []),
    "no id": ("headers.id", ...),
    "id a number": ("headers.id", 5),
    "id of 200 kB": ("headers.id", "x" * 200_000),
    "task a list": ("headers.task", ["lab.work"]),
    "task with escapes": ("headers.task", "lab\x1b[2J\r\nwork"),
    "limits a number": ("headers.timelimit", 5),
    "limits texts": ("headers.timelimit", ["a", "b"]),
    "retries a text": ("headers.retries", "many"),
    "eta no time": ("headers.eta", "0001-01-01T00:00:00+05:00"),
    "expires a list": ("headers.expires", [1]),
    "properties a text": ("properties", "none"),
    "unknown encoding": ("content-encoding", "klingon"),
    "unknown type": ("content-type", "application/x-nothing"),
    "pickle": ("content-type", "application/x-python-serialize"),
    "unknown compression": ("headers.compression", "application/x-nothing"),
    "compressed by hearsay": ("headers.compression", "application/x-gzip"),
}
BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"nonsense",
    "object": b"{}",
    "number": b"5",
    "one item": b"[[]]",
    "args an object": b'[{"a": 1}, {}, {}]',
    "kwargs a list": b"[[], [], {}]",
    "embed a text": b'[[], {}, "embed"]',
    "kwargs with a wrong name": b'[[], {"not an argument": 1}, {}]',
    "callbacks a number": b'[[], {}, {"callbacks": 5, "errbacks": null, "chain": null, "chord": null}]',
    "not UTF-8": b'[["\xff"], {}, {}]',
    "lone surrogate": b'[["\\ud800"], {}, {}]',
    "huge integer": b"[[" + b"9" * 100_000 + b"], {}, {}]",
    "not a number": b"[[NaN], {}, {}]",
    "deep": b"[[" + b"[" * 100_000 + b"]" * 100_000 + b"], {}, {}]",
    "tag without a type": b'[[{"__type__": "os.system", "__value__": "true"}], {}, {}]',
    "tag with a wrong value": b'[[{"__type__": "datetime", "__value__": []}], {}, {}]',
    "a decimal of a million digits": b'[[{"__type__": "decimal", "__value__": "' + b"9" * 1_000_000 + b'"}], {}, {}]',
}


def test_malformed_messages_are_put_aside_and_their_neighbours_run(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    executors = worker.executors()
    task = lab.app.tasks["lab.work"]
    bad: list[Message] = []
    for number, case in enumerate((*HEADS.values(), *BODIES.values())):
        good = lab.app.client.build(task, (0.0,), {}, {"task_id": new_id()})
        if isinstance(case, tuple):
            good.head = altered(good.head, *case)
        elif number < len(HEADS):
            good.head = case
        else:
            good.body = case
        bad.append(good)
    bomb = lab.app.client.build(task, (0.0,), {}, {})
    bomb.head = altered(bomb.head, "headers.compression", "application/x-gzip")
    bomb.body = gzip.compress(b" " * (64 << 20))
    for message in (*bad, bomb):
        lab.journal.write("intended", message.id)
        lab.app.broker.publish([message], time.time())
        lab.send("lab.work", 0.0)
    good_ids = lab.journal.ids("returned")
    finals = lab.wait_states([*good_ids, *(m.id for m in (*bad, bomb))], 30)
    assert {finals[id].state for id in good_ids} == {"SUCCESS"}
    names = [*(f"head {name}" for name in HEADS), *(f"body {name}" for name in BODIES), "bomb"]
    unexplained = [
        name
        for name, message in zip(names, (*bad, bomb), strict=True)
        if not finals[message.id].dead and not finals[message.id].error and finals[message.id].state != "SUCCESS"
    ]
    assert unexplained == []
    for name in ("body not JSON", "body object", "head not JSON", "head pickle", "bomb"):
        assert finals[(*bad, bomb)[names.index(name)].id].dead, f"{name} is no dead letter"
    assert worker.executors() == executors, "a message took its executor down"
    canary = lab.send("lab.work", 0.0)
    began = time.monotonic()
    assert lab.wait_states([canary], 3)[canary].state == "SUCCESS"
    assert time.monotonic() - began < 1.0
    assert lab.waiting() == 0
    worker.stop()
    assert worker.wait_exit() == 0


#: Column → a value of a type that does not belong there.
COLUMNS: dict[str, Any] = {
    "id": b"\xff\xfe",
    "task": b"lab.work",
    "head": "text",
    "body": 5,
    "priority": "high",
    "expires": "soon",
    "generation": "first",
    "crashes": "none",
    "offers": b"x",
    "token": "t",
    "published": "never",
}


def test_rows_of_wrong_types_cannot_be_written_into_the_file(lab: Lab) -> None:
    lab.send("lab.work")
    with sqlite3.connect(lab.file) as connection:
        for column, value in COLUMNS.items():
            with pytest.raises(sqlite3.IntegrityError, match="cannot store"):
                connection.execute(f"UPDATE message SET {column} = ?", (value,))
    lab.worker()
    lab.prove(Rules())


# --- other apps ------------------------------------------------------------------------------------------------


def test_a_task_that_nobody_knows_is_a_dead_letter_after_its_time(lab: Lab) -> None:
    worker = lab.worker(settings={"worker_unknown_task_wait": 1.0}, LAB_WITHOUT="lab.work")
    id, known = lab.send("lab.work"), lab.send_many("lab.work_late", 5)
    finals = lab.wait_states([id, *known])
    assert (finals[id].state, finals[id].error) == ("FAILURE", "NotRegistered")
    assert "lab.work" in finals[id].dead
    assert {finals[one].state for one in known} == {"SUCCESS"}
    assert worker.text().count("is not one of this worker's") == 1
    assert lab.journal.ids("start").count(id) == 0
    # Somebody who knows it may have it run after all.
    letters = lab.app.dead
    assert letters is not None
    lab.worker()
    letters.revive([letter.number for letter in letters.pick(None, [id])], time.time())
    wait(lambda: lab.finals([id]).get(id) is not None and lab.finals([id])[id].state == "SUCCESS", 10, "the revival")


def test_a_task_unknown_to_one_worker_runs_on_the_one_that_knows_it(lab: Lab) -> None:
    lab.worker("-c", "1", LAB_WITHOUT="lab.work")
    ids = lab.send_many("lab.work", 5)
    wait(lambda: lab.workers[0].said("is not one of this worker's"), 10, "the warning")
    lab.worker("-c", "1")
    finals = lab.wait_states(ids, 15)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert lab.prove(Rules()).duplicated == 0


def test_two_apps_on_one_queue_lose_nothing_and_are_told_how_to_part(lab: Lab) -> None:
    first = lab.worker("-c", "1", LAB_WITHOUT="lab.work")
    second = lab.worker("-c", "1", LAB_WITHOUT="lab.work_late")
    ids = [lab.send(task) for _ in range(30) for task in ("lab.work", "lab.work_late")]
    finals = lab.wait_states(ids, 25)
    assert {final.state for final in finals.values()} == {"SUCCESS"}
    assert lab.prove(Rules()).duplicated == 0
    for worker in (first, second):
        assert worker.text().count("is not one of this worker's") <= 1
    told = first.text() + second.text()
    assert "'celery'" in told
    assert "task_default_queue" in told


# --- revocation ------------------------------------------------------------------------------------------------


def revoke(lab: Lab, id: str, **options: Any) -> None:
    lab.app.control.revoke(id, **options)
    lab.journal.write("revoked", id)


def test_a_revoked_task_never_runs_not_even_after_a_kill_and_a_restart(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    lab.wait_states(lab.send_many("lab.work", 2))
    delayed = lab.send("lab.work_late", 0.0, countdown=2)
    running = lab.send("lab.work_late", 1.0)
    lab.wait_started(running)
    behind = lab.send_many("lab.work_late", 5, 0.0)
    for id in (delayed, *behind):
        revoke(lab, id)
    worker.kill()
    lab.worker("-c", "1")
    more = lab.send("lab.work", 0.0, countdown=3)
    finals = lab.wait_states([delayed, running, *behind, more])
    assert {finals[id].state for id in (delayed, *behind)} == {"REVOKED"}
    assert finals[running].state == "SUCCESS"
    # The killed one is acknowledged late, the others early: what may repeat is that one.
    lab.prove(Rules(late=True))
    assert not set(lab.journal.ids("start")) & {delayed, *behind}


def test_a_task_that_waits_behind_another_in_the_executor_can_still_be_revoked(lab: Lab) -> None:
    lab.worker("-c", "1")
    lab.wait_states(lab.send_many("lab.work_late", 40, 0.0))
    ids = [lab.send("lab.work_late", 1.0), *lab.send_many("lab.work_late", 20, 0.0)]
    lab.wait_started(ids[0])
    waiting = [id for id in ids[5:] if id not in lab.journal.ids("start")]
    for id in waiting:
        revoke(lab, id)
    finals = lab.wait_states(ids)
    assert {finals[id].state for id in waiting} == {"REVOKED"}
    lab.prove(Rules(late=True))


def test_revoking_with_terminate_kills_what_runs_and_it_stays_revoked(lab: Lab) -> None:
    worker = lab.worker("-c", "1")
    id = lab.send("lab.work_late", 30.0)
    lab.wait_started(id)
    executors = worker.executors()
    lab.app.control.revoke(id, terminate=True)
    assert lab.wait_states([id], 5)[id].state == "REVOKED"
    wait(lambda: worker.executors() and worker.executors() != executors, 5, "a new executor")
    neighbour = lab.send("lab.work", 0.0)
    lab.wait_states([neighbour], 5)
    assert lab.journal.ids("start").count(id) == 1
    worker.kill()
    lab.worker("-c", "1")
    last = lab.send("lab.work", 0.0)
    lab.wait_states([last], 10)
    assert lab.finals([id])[id].state == "REVOKED"
    assert lab.journal.ids("start").count(id) == 1


def test_a_task_that_its_executor_is_about_to_begin_is_terminated_too(lab: Lab) -> None:
    lab.worker("-c", "1", UMBEL_FAILPOINTS="start.after=sleep(1)", UMBEL_FAILPOINTS_IN="consumer")
    id = lab.send("lab.work", 30.0)
    wait(lambda: lab.app.AsyncResult(id).lifecycle == "started", 10, "that it has started, as everybody sees it")
    lab.app.control.revoke(id, terminate=True)
    assert lab.wait_states([id], 10)[id].state == "REVOKED"


def test_revoking_a_running_task_without_terminate_lets_it_end_and_gives_one_terminal_state(lab: Lab) -> None:
    lab.worker("-c", "1")
    id = lab.send("lab.work", 1.0)
    lab.wait_started(id)
    lab.app.control.revoke(id)
    seen = []
    wait(lambda: seen.append(lab.finals([id]).get(id)) or id in lab.journal.ids("end"), 5, "the end")
    last = lab.wait_states([id])[id]
    terminal = {final for final in [*seen, last] if final is not None and final.state in {"SUCCESS", "REVOKED"}}
    assert len({final.state for final in terminal}) == 1


def test_terminate_signals_are_words_of_the_supervisor(lab: Lab) -> None:
    lab.worker("-c", "1")
    id = lab.send("lab.soft", soft_time_limit=30)
    lab.wait_started(id)
    lab.app.control.revoke(id, terminate=True, signal=signal.SIGUSR1.name)
    wait(lambda: id in lab.journal.ids("soft"), 5, "SoftTimeLimitExceeded in the task")
