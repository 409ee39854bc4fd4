"""Global options, help, suggestions, plugins, and how the app is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.kit import Project
from umbel.cli.main import NOT_YET, main, umbel
from umbel.cli.worker_options import NOT_SUPPORTED

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_command_the_help_is_shown() -> None:
    shown = CliRunner().invoke(umbel, [])
    assert shown.exit_code == 0
    assert "worker" in shown.output
    assert "Usage:" in shown.output


def test_the_help_page_imports_no_command() -> None:
    code = (
        "import sys; from umbel.cli.main import main; main(['--help']); print([m for m in sys.modules if 'umbel' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "umbel.cli.main" in done.stdout
    assert "umbel.cli.worker" not in done.stdout
    assert "umbel.app" not in done.stdout


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wroker"]) == 2
    assert "Did you mean worker?" in capsys.readouterr().err


def test_a_mistyped_option_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--concurency", "2"]) == 2
    assert "--concurrency" in capsys.readouterr().err


@pytest.mark.parametrize("name", NOT_YET)
def test_a_command_of_celery_that_is_missing_says_what_to_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert f"umbel has no command {name!r} yet: {NOT_YET[name]}" in capsys.readouterr().err


@pytest.mark.parametrize("refused", NOT_SUPPORTED, ids=lambda refused: refused.flags[0])
def test_an_option_of_celery_that_is_missing_says_what_to_do(
    refused: object, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in refused.flags:  # type: ignore[attr-defined]
        value = [] if refused.is_flag else ["1"]  # type: ignore[attr-defined]
        assert main(["-A", "proj", "worker", flag, *value]) == 2
        assert refused.advice in capsys.readouterr().err  # type: ignore[attr-defined]


def test_a_global_option_after_the_command_is_told_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "-A", "proj"]) == 2
    assert "-A stands before the command: umbel -A … worker" in capsys.readouterr().err


def test_the_loader_option_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--loader", "x", "report"]) == 2
    assert "--config" in capsys.readouterr().err


def test_the_reference_page_is_up_to_date() -> None:
    script = ROOT / "scripts" / "gen_cli_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def test_plugins_become_commands_and_broken_ones_break_nothing(project: Project) -> None:
    project.write("greet.py", "import click\n@click.command()\ndef hello():\n    click.echo('hello from a plugin')\n")
    points = (
        "[umbel.commands]\nhello = greet:hello\n[celery.commands]\nbroken = nowhere:command\nodd = greet:__name__\n"
    )
    project.write("greet-1.dist-info/entry_points.txt", points)
    project.write("greet-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: greet\nVersion: 1\n")
    path = {"PYTHONPATH": str(project.folder)}
    assert project.run("hello", **path).stdout == "hello from a plugin\n"
    shown = project.run("--help", **path)
    assert "hello" in shown.stdout
    broken = project.run("broken", **path)
    assert broken.returncode == 2
    assert "The plugin broken (nowhere:command) cannot be loaded" in broken.stderr
    assert "no click command" in project.run("odd", **path).stderr
    assert project.run("queues", **path).returncode == 0


# --- the app ------------------------------------------------------------------------------------------------

APP = "from umbel.app.app import Umbel\n{name} = Umbel('found-{name}')\n"


def found(project: Project, app: str, *, env: dict[str, str] | None = None) -> str:
    done = project.run("report", app=app, **(env or {}))
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("app:"))
    return line.split()[1]


@pytest.mark.parametrize(
    ("path", "text", "name", "main_name"),
    [
        ("a.py", APP.format(name="app"), "a", "found-app"),
        ("a.py", APP.format(name="celery"), "a", "found-celery"),
        ("a.py", APP.format(name="umbel"), "a", "found-umbel"),
        ("a.py", APP.format(name="other"), "a", "found-other"),
        ("a.py", APP.format(name="other") + APP.format(name="app"), "a:other", "found-other"),
        ("a.py", APP.format(name="other") + APP.format(name="app"), "a.other", "found-other"),
        ("pkg/celery.py", APP.format(name="app"), "pkg", "found-app"),
        ("pkg/umbel.py", APP.format(name="app"), "pkg", "found-app"),
        ("pkg/__init__.py", APP.format(name="app"), "pkg", "found-app"),
        ("pkg/sub.py", APP.format(name="app"), "pkg.sub", "found-app"),
    ],
)
def test_an_app_is_found(project: Project, path: str, text: str, name: str, main_name: str) -> None:
    project.write("pkg/__init__.py", "")
    project.write(path, text)
    assert found(project, name) == main_name


@pytest.mark.parametrize("variable", ["UMBEL_APP", "CELERY_APP"])
def test_the_environment_may_name_the_app(project: Project, variable: str) -> None:
    assert found(project, "", env={variable: "proj"}) == "proj"


@pytest.mark.parametrize(
    ("path", "text", "name", "told"),
    [
        ("a.py", "", "b", "and on the Python path. Start in the folder"),
        ("prroj.py", "", "prooj", "'? Start in the folder"),
        ("a.py", "import nowhere_to_be_found\n", "a", "importing a failed: ModuleNotFoundError"),
        ("a.py", "x = 1\n1 / 0\n", "a", 'a.py", line 2: 1 / 0'),
        ("a.py", "def (\n", "a", "SyntaxError"),
        ("a.py", APP.format(name="jobs"), "a:app", "has no 'app'; its apps are jobs"),
        ("a.py", "x = 1\n", "a", "holds no app"),
        ("a.py", "app = 1\n", "a", "a:app is a int, no app"),
        (
            "a.py",
            APP.format(name="jobs") + "@jobs.task\ndef add(): ...\n",
            "a.add",
            "a:add is a task, no app; name its module: -A a",
        ),
        ("a.py", "def app(): ...\n", "a", "app = app()"),
        ("a.py", "", "a.py", "give the name of the module: -A a"),
        ("a.py", "", ":app", "a module is missing before the colon"),
    ],
)
def test_an_app_that_cannot_be_found_is_told_why(project: Project, path: str, text: str, name: str, told: str) -> None:
    project.write(path, text)
    done = project.run("report", app=name)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_of_the_package_celery_is_told_how_to_become_one_of_umbel(project: Project) -> None:
    project.write("celery/__init__.py", "class Celery: ...\n")
    project.write("old.py", "from celery import Celery\napp = Celery()\n")
    done = project.run("worker", app="old")
    assert done.returncode == 2
    assert "from umbel import Celery" in done.stderr


def test_debug_shows_the_traceback_of_an_import_error(project: Project) -> None:
    project.write("a.py", "1 / 0\n")
    assert "Traceback" in project.run("--debug", "report", app="a").stderr


def test_no_app_at_all_suggests_the_modules_that_make_one(project: Project) -> None:
    done = project.run("worker", app="")
    assert done.returncode == 2
    assert "Here an app is made in: -A proj" in done.stderr


def test_workdir_is_entered_first(project: Project, tmp_path: Path) -> None:
    project.write("inner/deep.py", APP.format(name="app"))
    assert project.run("--workdir", "inner", "report", app="deep").returncode == 0


def test_an_option_can_come_from_celerys_environment_variables(project: Project) -> None:
    done = project.run("worker", CELERY_WORKER_CONCURRENCY="none")
    assert done.returncode == 2
    assert "concurrency 'none'" in done.stderr
