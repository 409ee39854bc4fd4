"""A program's own app can be the command line: `app.start()` and `app.worker_main()`."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.kit import Project


def test_an_app_runs_the_command_line_for_itself(project: Project) -> None:
    project.write("run.py", "import sys\nfrom proj import app\nsys.exit(app.start())\n")
    done = subprocess.run(
        [sys.executable, "run.py", "call", "proj.add", "-a", "[1, 2]"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = project.run("result", done.stdout.strip())
    assert told.stderr == "PENDING (queued)\n"


def test_an_app_runs_a_worker_for_itself(project: Project) -> None:
    text = "import sys\nfrom proj import app\nsys.exit(app.worker_main(['worker', '-c', '1', '-l', 'info']))\n"
    project.write("run.py", text)
    with subprocess.Popen(
        [sys.executable, "run.py"], cwd=project.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        assert any("ready." in line for line in process.stderr)
        process.terminate()
        process.stderr.read()
        assert process.wait(timeout=15) == 0
