"""The commands on Redis and RabbitMQ: sending, counting, reporting, and what is wrong in one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.kit import Project


def test_queues_on_rabbitmq_are_those_of_the_app_and_count_what_is_ready(project: Project, rabbit_url: str) -> None:
    assert project.run("call", "proj.add", "-a", "[1, 2]", UMBEL_BROKER_URL=rabbit_url).returncode == 0
    assert project.run("queues", UMBEL_BROKER_URL=rabbit_url).stdout.split()[-4:] == ["1", "-", "-", "celery"]
    told = json.loads(project.run("queues", "-j", UMBEL_BROKER_URL=rabbit_url).stdout)
    assert told == {"celery": {"ready": 1, "scheduled": None, "leased": None}}
    assert project.run("purge", "-f", UMBEL_BROKER_URL=rabbit_url).stdout == "Deleted 1 message from celery.\n"


def test_queues_on_redis_are_all_that_it_knows(project: Project, redis_url: str) -> None:
    for queue in ("a", "celery"):
        assert (
            project.run("call", "proj.add", "-a", "[1, 2]", "--queue", queue, UMBEL_BROKER_URL=redis_url).returncode
            == 0
        )
    told = json.loads(project.run("queues", "-j", UMBEL_BROKER_URL=redis_url).stdout)
    assert {name: depth["ready"] for name, depth in told.items()} == {"a": 1, "celery": 1}


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "amqp://me:secret@127.0.0.1:1//"])
def test_a_broker_that_is_not_there_is_told_in_one_line_without_its_password(project: Project, url: str) -> None:
    done = project.run("queues", UMBEL_BROKER_URL=url)
    assert done.returncode == 69
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "amqp://me:secret@127.0.0.1:1//"])
def test_a_report_needs_no_broker_and_hides_its_password(project: Project, url: str) -> None:
    done = project.run("report", UMBEL_BROKER_URL=url)
    assert done.returncode == 0, done.stderr
    assert "durability:" in done.stdout
    assert "secret" not in done.stdout


def test_results_that_are_messages_are_nobody_elses_to_see(project: Project, rabbit_url: str, redis_url: str) -> None:
    done = project.run("result", "some-id", UMBEL_BROKER_URL=rabbit_url)
    assert done.returncode != 0
    assert "set result_backend" in done.stderr
    assert done.stderr.count("\n") == 1
    told = project.run("result", "-j", "some-id", UMBEL_BROKER_URL=rabbit_url, UMBEL_RESULT_BACKEND=redis_url)
    assert json.loads(told.stdout)["state"] == "PENDING"


def test_a_report_tells_what_the_settings_of_redis_mean_for_messages(project: Project, redis_url: str) -> None:
    done = project.run("report", UMBEL_BROKER_URL=redis_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("set `appendonly yes`") == 1


def test_a_worker_says_at_its_start_where_results_go(project: Project, rabbit_url: str) -> None:
    with project.worker(UMBEL_BROKER_URL=rabbit_url):
        assert "results:     messages to whoever sent the task" in project.log()


CHORD = """
from umbel import Umbel, chord
app = Umbel("sender", broker={broker!r}, backend={store!r})
add = app.signature("proj.add", args=(1,))
print(chord([add, add.clone().set(countdown=0)], app=app)(app.signature("proj.add", args=(1,))).id)
"""


def test_purge_without_an_app_says_whether_chords_are_told(project: Project, rabbit_url: str, redis_url: str) -> None:
    project.write("send.py", CHORD.format(broker=rabbit_url, store=redis_url))
    send = [sys.executable, str(project.folder / "send.py")]
    subprocess.run(send, check=True, cwd=project.folder)
    blind = project.run("-b", rabbit_url, "purge", "-f", app="")
    assert blind.stdout == "Deleted 2 messages from celery.\n"
    assert "are NOT told" in blind.stderr
    assert "what waits for its time (countdown, retries): that stays" in blind.stderr
    body = subprocess.run(send, check=True, cwd=project.folder, capture_output=True, text=True).stdout.strip()
    seeing = project.run("-b", rabbit_url, "--result-backend", redis_url, "purge", "-f", app="")
    assert seeing.stdout == "Deleted 2 messages from celery.\n"
    assert f"chords and chains are told by way of {redis_url}" in seeing.stderr
    settings = {"UMBEL_BROKER_URL": rabbit_url, "UMBEL_RESULT_BACKEND": redis_url}
    with project.worker(**settings):
        done = project.run("result", body, "--wait", "20", **settings)
    assert "ChordError: Dependency" in done.stderr
