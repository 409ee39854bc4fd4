"""One RabbitMQ for all processes of a test run: the first that needs it starts it, and it goes with the run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.servers.process import Keeper, ServerFailedError
from tests.servers.rabbit_server import RabbitAddress, RabbitServer

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 85.0
#: What the processes of one run have in common.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(16)


def shared_rabbit() -> RabbitAddress:
    """The RabbitMQ of this test run, started when nobody has yet. Raises `ServerFailedError`."""
    main = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
    note = Path(tempfile.gettempdir()) / f"umbel-rabbit-{os.getuid()}-{RUN}.json"
    with note.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            command = [sys.executable, "-m", "tests.servers.shared", str(main), str(note)]
            # Through a shell that does not wait: the host belongs to the run, not to this process.
            subprocess.run(["/bin/sh", "-c", '"$@" </dev/null &', "sh", *command], cwd=ROOT, check=True)
            deadline = time.monotonic() + WAIT_SECONDS
            while not note.exists():
                if time.monotonic() > deadline:
                    raise ServerFailedError("RabbitMQ did not start in time")
                time.sleep(0.05)
    said = json.loads(note.read_text())
    if "error" in said:
        raise ServerFailedError(said["error"])
    return RabbitAddress(said["port"], said["question_port"], said["token"])


def main(watched: int, note: Path) -> None:
    """Start the server, tell where it is, and stay until the test run has gone."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())
    for path in (note, note.with_suffix(".lock"), note.with_suffix(".part")):
        Keeper.tell(f"file {path}")
    server = RabbitServer()
    try:
        _write(note, _started(server) | {"host": os.getpid(), "folder": str(server.folder)})
        while _alive(watched):
            time.sleep(0.3)
    finally:
        server.close()
        Keeper.stop()


def _started(server: RabbitServer) -> dict[str, object]:
    try:
        server.start()
    except ServerFailedError as error:
        return {"error": str(error)}
    return {"port": server.port, "question_port": server.question_port, "token": server.token}


def _write(note: Path, said: dict[str, object]) -> None:
    """Write it so that nobody reads half of it, and nobody else at all."""
    part = note.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(said))
    part.rename(note)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
