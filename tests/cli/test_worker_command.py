"""`umbel worker` as a process: banner, logs, files, signals, refusals; and the commands that speak with it."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.cli.kit import Project
from tests.servers import RedisServer
from umbel.cli.main import main


def result_of(project: Project, *call: str) -> str:
    """Send a task, wait for its end, return what `umbel result` prints."""
    task_id = project.run("call", *call).stdout.strip()
    done = project.run("result", task_id, "--wait", "15")
    return done.stdout + done.stderr


def test_a_worker_says_who_it_is_runs_tasks_and_stops_with_status_0(project: Project) -> None:
    with project.worker("-n", "w1@%h") as worker:
        assert "3\n" in result_of(project, "proj.add", "-a", "[1, 2]")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=15) == 0
    log = project.log()
    assert re.search(r"^w1@\S+ · umbel \S+ · CPython", log)
    assert f"directory:   {project.folder}\n" in log
    assert "durability:  class A" in log
    assert "concurrency: 1 (prefork)" in log
    assert "celery           exchange=celery (direct) key=celery" in log
    assert "  . proj.add" in log
    assert re.search(r"INFO/supervisor\] w1@\S+ ready\.", log)
    assert re.search(r"INFO/executor-1\] Task proj.add\[[-0-9a-f]{36}\] succeeded in", log)
    assert "warm shutdown" in log


def test_interrupt_ends_a_worker_with_status_1(project: Project) -> None:
    with project.worker() as worker:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(timeout=15) == 1


def test_quiet_shows_no_banner(project: Project) -> None:
    with project.worker(before=("-q",)):
        pass
    assert "[config]" not in project.log()


def test_status_inspect_and_control_reach_the_worker(project: Project) -> None:
    nobody = project.run("status", "-t", "0.1")
    assert nobody.returncode == 69
    assert "no nodes replied within 0.1 s" in nobody.stderr
    with project.worker("-n", "w1@here"):
        assert project.run("status", "-t", "0.4").stdout == "w1@here: OK\n\n1 node online.\n"
        assert "* proj.add" in project.run("inspect", "registered", "-t", "0.4").stdout
        answers = json.loads(project.run("inspect", "-j", "active_queues", "-t", "0.4").stdout)
        assert [queue["name"] for queue in answers["w1@here"]] == ["celery"]
        assert "max-concurrency" in project.run("inspect", "stats", "-d", "w1@here").stdout
        assert project.run("inspect", "ping", "-d", "w2@here", "-t", "0.2").returncode == 69
        assert "new rate limit set" in project.run("control", "rate_limit", "proj.add", "10/m", "-t", "0.4").stdout
        assert "flagged as revoked" in project.run("control", "revoke", "some-id", "-t", "0.4").stdout
        assert "tasks unknown" in project.run("control", "terminate", "kill", "some-id", "-t", "0.4").stdout
        assert project.run("control", "shutdown", "-t", "0.4").returncode == 0
        project.wait_until(lambda: "warm shutdown" in project.log(), what="the worker to stop")


def test_a_revoked_task_is_never_run(project: Project) -> None:
    task_id = project.run("call", "proj.add", "-a", "[1, 2]").stdout.strip()
    told = project.run("control", "revoke", task_id, "-t", "0.1")
    assert told.returncode == 69
    assert "the revocation is stored" in told.stderr
    done = project.run("result", task_id)
    assert done.returncode == 1
    assert "REVOKED (revoked)" in done.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["inspect", "pong"], "Did you mean ping?"),
        (["inspect", "memdump"], "do not know 'memdump': look at"),
        (["inspect", "query_task"], "it goes: inspect query_task ID..."),
        (["inspect", "active", "x"], "it goes: inspect active"),
        (["control", "pool_grow"], "do not know 'pool_grow' yet"),
        (["control", "revoke"], "it goes: control revoke ID..."),
        (["control", "terminate", "NOSUCH", "id"], "'NOSUCH' is no signal"),
        (["control", "rate_limit", "x"], "it goes: control rate_limit TASK RATE"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-A", "proj", *args]) == 2
    assert told in capsys.readouterr().err


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-P", "gevent"], "-P asyncio"),
        (["-P", "preforc"], "'preforc' is not known"),
        (["-c", "many"], "neither a number nor 'auto'"),
        (["-l", "inof"], "Did you mean INFO?"),
        (["-n", "%q"], "%q, which means nothing"),
        (["--", "worker_leese=1"], "worker_lease"),
        (["--", "worker_lease"], "write name=value"),
        (["-X", "celery"], "no queue is left"),
        (["-f", "no/such/folder.log"], "the log file no/such/folder.log cannot be written"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(project: Project, args: list[str], told: str) -> None:
    done = project.run("worker", *args)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_queue_is_told_where_queues_are_not_made_by_themselves(project: Project) -> None:
    project.write("strict.py", "from proj import app\napp.conf.task_create_missing_queues = False\n")
    done = project.run("worker", "-Q", "celary", app="strict")
    assert done.returncode == 2
    assert "did you mean 'celery'?" in done.stderr


def test_sigusr1_shows_the_stacks_of_the_supervisor(project: Project) -> None:
    with project.worker() as worker:
        worker.send_signal(signal.SIGUSR1)
        project.wait_until(lambda: "in dump_stacks" in project.log(), what="the stacks")


def test_settings_may_follow_two_dashes(project: Project) -> None:
    with project.worker("--", "worker_log_format=%(levelname)s: %(message)s", ".redirect_stdouts=no"):
        result_of(project, "proj.speak", "-a", '["x"]')
        project.wait_until(lambda: "succeeded" in project.log(), what="the task's line")
    assert re.search(r"^INFO: Task proj.speak", project.log(), re.MULTILINE)
    assert re.search(r"^printed x$", project.log(), re.MULTILINE)


def test_modules_may_be_included(project: Project) -> None:
    project.write("more.py", "from proj import app\n@app.task\ndef extra():\n    return 'extra'\n")
    with project.worker("-I", "more", "--disable-prefetch"):
        assert "extra\n" in result_of(project, "more.extra")
    broken = project.run("worker", "-I", "nowhere")
    assert broken.returncode == 2
    assert "No module named 'nowhere'" in broken.stderr


def test_what_has_no_effect_is_accepted(project: Project) -> None:
    with project.worker("--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair"):
        pass


def test_a_worker_of_some_queues_leaves_others_alone_and_purge_empties_them(project: Project) -> None:
    with project.worker("-Q", "fast, other"):
        assert "3\n" in result_of(project, "proj.add", "-a", "[1, 2]", "--queue", "fast")
        project.run("call", "proj.add", "-a", "[1, 2]")
        counts = json.loads(project.run("queues", "-j").stdout)
        assert counts["celery"] == {"ready": 1, "scheduled": 0, "leased": 0}
    with project.worker("--purge"):
        project.wait_until(lambda: "Purged 1 messages" in project.log(), what="the purge")


def test_a_worker_that_root_runs_refuses_pickle(project: Project) -> None:
    if os.getuid() != 0:
        pytest.skip("the tests are not run by root")
    project.write("pickled.py", "from proj import app\napp.conf.accept_content = ['json', 'pickle']\n")
    done = project.run("worker", app="pickled")
    assert done.returncode == 1
    assert "C_FORCE_ROOT" in done.stderr


def test_a_broker_that_cannot_be_reached_is_one_line_and_status_69(project: Project) -> None:
    project.write("folder/keep", "")
    done = project.run("-b", f"sqlite:///{project.folder}/missing/queue.db", "queues", app="")
    assert done.returncode == 69, done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in project.run("--debug", "-b", f"sqlite:///{project.folder}/missing/q.db", "queues").stderr


def test_a_wrong_password_is_told_by_every_command_with_the_way_out(project: Project, redis_installed: None) -> None:
    with RedisServer(requirepass="right") as server:
        wrong = server.url.replace("right", "secret")
        for arguments in (("call", "proj.add", "-a", "[1, 2]"), ("worker",)):
            done = project.run(*arguments, UMBEL_BROKER_URL=wrong)
            assert done.returncode != 0
            assert "refuses user name or password" in done.stderr
            assert "write redis://user:**@host" in done.stderr
            assert "secret" not in done.stderr
    assert "CRITICAL/MainProcess] The worker cannot run: Redis" in done.stderr


# --- files --------------------------------------------------------------------------------------------------


def test_a_pidfile_is_held_by_one_worker_and_removed_at_its_end(project: Project) -> None:
    pidfile = project.folder / "w1.pid"
    with project.worker("-n", "w1@here", "--pidfile", "%n.pid") as worker:
        assert pidfile.read_text() == f"{worker.pid}\n"
        second = project.run("worker", "--pidfile", str(pidfile))
        assert second.returncode == 73
        assert f"a worker (pid {worker.pid}) runs already" in second.stderr
    assert not pidfile.exists()


def test_a_pidfile_of_a_killed_worker_is_no_obstacle(project: Project) -> None:
    project.write("old.pid", f"{os.getpid()}\n")
    with project.worker("--pidfile", "old.pid") as worker:
        assert (project.folder / "old.pid").read_text() == f"{worker.pid}\n"


def test_a_log_file_may_be_one_for_each_process_and_be_moved_away(project: Project) -> None:
    with project.worker("-n", "w1@here", "-f", "%n%I.log", wait=False):
        main_log, own_log = project.folder / "w1.log", project.folder / "w1-1.log"
        project.wait_until(lambda: main_log.exists() and "ready." in main_log.read_text(), what="the log file")
        result_of(project, "proj.speak", "-a", '["one"]')
        project.wait_until(lambda: "succeeded" in own_log.read_text(), what="the task's line")
        own_log.rename(project.folder / "moved.log")
        result_of(project, "proj.speak", "-a", '["two"]')
        project.wait_until(lambda: own_log.exists() and "succeeded" in own_log.read_text(), what="a new file")
        assert "two" not in Path(project.folder / "moved.log").read_text()


# --- logs ---------------------------------------------------------------------------------------------------


def test_json_logs_are_one_object_a_line_and_name_the_task(project: Project) -> None:
    with project.worker("--json-logs", before=("-q",)):
        result_of(project, "proj.speak", "-a", '["a\\nb\\u001b[31m"]')
        project.wait_until(lambda: "succeeded" in project.log(), what="the task's line")
    entries = [json.loads(line) for line in project.log().splitlines()]
    spoken = next(entry for entry in entries if entry["message"].startswith("spoken"))
    assert spoken["message"] == "spoken: a\nb\x1b[31m"
    assert (spoken["task_name"], spoken["process"], spoken["level"]) == ("proj.speak", "executor-1", "WARNING")
    assert re.fullmatch(r"[-0-9a-f]{36}", spoken["task_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", spoken["time"])
    printed = [entry for entry in entries if entry["logger"] == "celery.redirected"]
    assert printed[0]["message"] == "printed a"


def test_what_a_task_logs_cannot_pass_for_another_line(project: Project) -> None:
    with project.worker():
        result_of(project, "proj.speak", "-a", '["x\\n[2030-01-01: INFO/forged]\\u001b[2J\\u202e"]')
        project.wait_until(lambda: "succeeded" in project.log(), what="the task's line")
    log = project.log()
    assert "\x1b" not in log
    assert "\u202e" not in log
    assert not re.search(r"^\[2030", log, re.MULTILINE)
    assert re.search(r"WARNING/executor-1\] proj.speak\[[-0-9a-f]{36}\]: spoken: x\n  \[2030.*\\x1b\[2J\\u202e", log)


def test_arguments_and_results_are_not_logged(project: Project) -> None:
    with project.worker("-l", "debug"):
        result_of(project, "proj.fail", "-a", '["sesame"]')
        result_of(project, "proj.add", "-a", '["open", "sesame"]')
        project.wait_until(lambda: "succeeded" in project.log(), what="the task's line")
    assert "this went wrong" in project.log()
    assert "sesame" not in project.log()
