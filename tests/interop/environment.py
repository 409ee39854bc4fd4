"""The environment of its own in which real Celery runs: made once, from PyPI, beside the project's own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-interop"
PYTHON = FOLDER / "bin" / "python"
PACKAGES = ("celery[redis]==5.7.0", "msgpack>=1", "pyyaml>=6")
#: Written last, with what is installed: an environment without it, or with other packages, is made again.
MARK = FOLDER / ".installed"
#: Beside the environment, which is emptied when it is made.
LOCK = ROOT / ".venv-interop-lock" / "lock"


class EnvironmentFailedError(Exception):
    """Celery could not be installed; the text ends with what pip said."""


def python_with_celery() -> Path:
    """Return the interpreter that has Celery, after making its environment. Raises `EnvironmentFailedError`."""
    wanted = "\n".join(PACKAGES)
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not MARK.exists() or MARK.read_text() != wanted:
            _run(sys.executable, str(ROOT / "scripts" / "make_venv.py"), str(FOLDER))
            _run(str(PYTHON), "-m", "pip", "install", "-q", *PACKAGES)
            MARK.write_text(wanted)
    return PYTHON


def _run(*command: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise EnvironmentFailedError(f"{' '.join(command)} failed; is PyPI reachable?\n{said}")


if __name__ == "__main__":
    python_with_celery()
