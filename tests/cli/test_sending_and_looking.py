"""call, result, purge, queues and dead: what needs a broker and at most one worker."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.cli.kit import Project


def call(project: Project, *args: str, app: str = "proj") -> str:
    done = project.run("call", *args, app=app)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bury(project: Project, count: int) -> list[str]:
    """Make dead letters: tasks that no worker knows."""
    ids = [call(project, f"nobody.knows{number}", "-a", '["sesame"]') for number in range(count)]
    with project.worker("--", "worker_unknown_task_wait=0"):
        project.wait_until(
            lambda: len(json.loads(project.run("dead", "list", "-j").stdout)) == count, what="the dead letters"
        )
    return ids


# --- call and result ----------------------------------------------------------------------------------------


def test_a_task_is_sent_and_its_way_is_told(project: Project) -> None:
    task_id = call(project, "proj.add", "-k", '{"x": 1, "y": 2}')
    waiting = project.run("result", task_id)
    assert (waiting.returncode, waiting.stdout, waiting.stderr) == (1, "", "PENDING (queued)\n")
    later = call(project, "proj.add", "-a", "[1, 2]", "--countdown", "1000")
    assert project.run("result", later).stderr == "PENDING (scheduled)\n"
    with project.worker():
        done = project.run("result", task_id, "--wait", "15")
        assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "SUCCESS (succeeded)\n")
    assert project.run("-q", "result", task_id).stderr == ""
    told = json.loads(project.run("result", task_id, "-j").stdout)
    assert (told["state"], told["result"], told["error"]) == ("SUCCESS", 3, None)


def test_the_failure_of_a_task_is_status_1_and_its_traceback_is_there_on_request(project: Project) -> None:
    task_id = call(project, "proj.fail", "-a", '["x"]')
    with project.worker():
        done = project.run("result", task_id, "--wait", "15")
    assert done.returncode == 1
    assert "FAILURE (failed)\nValueError: this went wrong" in done.stderr
    traced = project.run("result", task_id, "--traceback", "-t", "proj.fail")
    assert traced.returncode == 1
    assert traced.stdout.startswith("Traceback (most recent call last):")


CHORD = """
from proj import add
from umbel import chord
sent = chord([add.s(1, 1)])(add.app.signature("proj.add", args=([0],)))
sent.get(timeout=20)
print(sent.parent.results[0].id, sent.id)
"""


def test_the_workflow_of_a_task_is_drawn(project: Project) -> None:
    source = (project.folder / "proj.py").read_text()
    project.write("proj.py", source + "\n@app.task\ndef first(x):\n    add.delay(x, 1)\n    return x\n")
    task_id = call(project, "proj.first", "-a", "[1]")
    with project.worker():
        project.run("result", task_id, "--wait", "15")
        drawn = project.run("graph", task_id).stdout.splitlines()
        child = drawn[1].split()[1]
        project.run("result", child, "--wait", "15")
        sent = subprocess.run(
            [sys.executable, "-c", CHORD], cwd=project.folder, capture_output=True, text=True, check=True
        )
        member, body = sent.stdout.split()
    assert project.run("graph", body).stdout.splitlines() == [f"{member} SUCCESS", f"└─ {body} SUCCESS"]
    assert drawn[0] == f"{task_id} SUCCESS"
    assert project.run("graph", child).stdout.splitlines() == [drawn[0], f"└─ {child} SUCCESS"]
    assert project.run("graph", child, "--below").stdout == f"{child} SUCCESS\n"
    assert f'"{task_id}" -> "{child}";' in project.run("graph", task_id, "--dot").stdout
    unknown = project.run("graph", "nobody")
    assert (unknown.returncode, "nothing is known of the task nobody" in unknown.stderr) == (1, True)


def test_a_task_can_be_sent_without_an_app_where_the_broker_is_named(project: Project) -> None:
    url = f"sqlite:///{project.folder}/queue.db"
    done = project.run("-b", url, "call", "proj.add", "-a", "[1, 2]", app="")
    assert done.returncode == 0, done.stderr
    assert project.run("queues", app="", UMBEL_BROKER_URL=url).stdout.split()[-1] == "celery"


def test_a_configuration_module_can_be_named(project: Project) -> None:
    project.write("settings.py", f"broker_url = 'sqlite:///{project.folder}/other.db'\n")
    done = project.run("--config", "settings", "call", "some.task", app="")
    assert done.returncode == 0, done.stderr
    assert (project.folder / "other.db").exists()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["proj.add", "-a", "[1"], "is not JSON"),
        (["proj.add", "-a", "{}"], "is no JSON array; write it like '[1, 2]'"),
        (["proj.add", "-k", "[]"], "is no JSON object"),
        (["proj.add", "--eta", "tomorrow"], "is no ISO 8601 time"),
        (["proj.add", "--expires", "soon"], "nor a number of seconds"),
        (["proj.add", "--eta", "2030-01-01", "--countdown", "1"], "give one of them"),
        (["proj.add", "-a", "[1]"], "proj.add(): missing a required argument: 'y'"),
        ([], "NAME"),
    ],
)
def test_what_cannot_be_sent_is_a_usage_error(project: Project, args: list[str], told: str) -> None:
    done = project.run("call", *args)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_task_that_the_app_does_not_know_is_sent_and_told(project: Project) -> None:
    done = project.run("call", "proj.ad")
    assert done.returncode == 0
    assert re.fullmatch("[-0-9a-f]{36}\n", done.stdout)
    assert done.stderr.startswith("The app knows no task 'proj.ad'")
    assert "did you mean 'proj.add'?" in done.stderr


def test_a_task_that_the_app_does_not_know_is_answered_with_the_nearest(project: Project) -> None:
    done = project.run("result", "id", "-t", "proj.ad")
    assert done.returncode == 2
    assert "did you mean 'proj.add'?" in done.stderr


# --- purge and queues ---------------------------------------------------------------------------------------


def test_purge_asks_first_and_says_how_much_it_is(project: Project) -> None:
    for _ in range(2):
        call(project, "proj.add", "-a", "[1, 2]")
    call(project, "proj.add", "-a", "[1, 2]", "--countdown", "1000")
    refused = project.run("purge", input="n\n")
    assert refused.returncode == 1
    assert re.search(r"^ +3  celery$", refused.stdout, re.MULTILINE)
    assert project.run("queues").stdout.split()[-4:] == ["2", "1", "0", "celery"]
    assert project.run("purge", "-f").stdout == "Deleted 3 messages from celery.\n"
    assert project.run("purge", input="y\n").stdout.endswith("Deleted 0 messages from celery.\n")


def test_purge_keeps_to_the_queues_that_it_is_told(project: Project) -> None:
    for queue in ("a", "b", "c"):
        call(project, "proj.add", "-a", "[1, 2]", "--queue", queue)
    assert project.run("purge", "-f", "-Q", "a,b", "-X", "b").stdout == "Deleted 1 message from a.\n"
    left = json.loads(project.run("queues", "-j", "-Q", "a,b,c").stdout)
    assert {name: depth["ready"] for name, depth in left.items() if depth["ready"]} == {"b": 1, "c": 1}
    assert project.run("purge", "-X", "celery").returncode == 2


# --- dead letters -------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_and_shown_without_their_arguments(project: Project) -> None:
    ids = bury(project, 2)
    listed = project.run("dead", "list").stdout
    assert all(f"nobody.knows{number}[{task_id}] (celery): " in listed for number, task_id in enumerate(ids))
    assert "sesame" not in listed
    only = json.loads(project.run("dead", "list", "-j", "--task", "nobody.knows1").stdout)
    assert [entry["id"] for entry in only] == ids[1:]
    assert len(json.loads(project.run("dead", "list", "-j", "-n", "1").stdout)) == 1
    assert project.run("dead", "list", "--queue", "other").stderr == "There are no dead letters.\n"
    shown = project.run("dead", "show", ids[0])
    assert shown.returncode == 0
    assert f"id:         {ids[0]}" in shown.stdout
    assert "no worker knows" in shown.stdout or "unknown" in shown.stdout
    assert "sesame" not in shown.stdout
    number = only[0]["number"]
    revealed = json.loads(project.run("dead", "show", str(number), "--args", "-j").stdout)
    assert revealed[0]["arguments"] == {"args": ["sesame"], "kwargs": {}}


def test_dead_letters_are_sent_again_or_dropped(project: Project) -> None:
    ids = bury(project, 3)
    assert project.run("dead", "retry", ids[0]).stdout == "Sent 1 dead letter again.\n"
    assert project.run("result", ids[0]).stderr == "PENDING (queued)\n"
    assert project.run("dead", "drop", "--all", "--task", "nobody.knows1", "-f").stdout == "Deleted 1 dead letter.\n"
    missing = project.run("dead", "drop", ids[1], "999")
    assert missing.returncode == 1
    assert missing.stderr.count("There is no dead letter") == 2
    assert project.run("dead", "retry", "--all", input="n\n").returncode == 1
    assert project.run("dead", "drop", "--all", input="y\n").stdout.endswith("Deleted 1 dead letter.\n")
    assert json.loads(project.run("dead", "list", "-j").stdout) == []


@pytest.mark.parametrize("args", [["retry"], ["drop"], ["drop", "1", "--all"], ["retry", "1", "--task", "x"], ["show"]])
def test_letters_must_be_named(project: Project, args: list[str]) -> None:
    assert project.run("dead", *args).returncode == 2


def test_a_mistyped_command_about_letters_is_answered_with_the_nearest(project: Project) -> None:
    assert "Did you mean retry?" in project.run("dead", "rety").stderr
