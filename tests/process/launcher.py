"""Starts workers by forking a process that has imported umbel already: what a worker then costs is what it does.

The other side of a socket pair sends a line of JSON for each: arguments, environment, folder, log. What goes back is
`began PID`, and when it has ended `ended PID STATUS`, with the status of `subprocess`. Nothing that depends on the
environment is imported here; failpoints, which are read at the import, are read again.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What a worker of the lab imports in any case, without the modules that read the environment.
MODULES = (
    "tests.process.jobs",
    "tests.process.nested",
    "umbel.cli.banner",
    "umbel.cli.main",
    "umbel.cli.worker",
    "umbel.engines.rabbitmq",
    "umbel.engines.redis",
    "umbel.engines.sqlite",
    "umbel.worker.consumer",
    "umbel.worker.executor",
    "umbel.worker.remote",
    "umbel.worker.supervisor",
)


class Launched:
    """A process that the launcher has forked, with what `subprocess.Popen` says of its own."""

    def __init__(self, launcher: Launcher, pid: int) -> None:
        self._launcher = launcher
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the status, None while it runs."""
        if self.returncode is None:
            self.returncode = self._launcher.status_of(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the status; raise `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.005)
        return status


class Launcher:
    """The side of the tests; one for each test process, started when first needed."""

    _of: dict[int, Launcher] = {}

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        self._lock = threading.Lock()
        self._rest = b""
        self._began = 0
        self._ended: dict[int, int] = {}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.launcher", str(other.fileno())],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONFAULTHANDLER": "1",
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
                },
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @classmethod
    def mine(cls) -> Launcher:
        """Return that of this process."""
        if os.getpid() not in cls._of:
            cls._of[os.getpid()] = cls()
        return cls._of[os.getpid()]

    @classmethod
    def end(cls) -> None:
        """End that of this process, if there is one."""
        launcher = cls._of.pop(os.getpid(), None)
        if launcher is not None:
            launcher._socket.close()
            launcher._process.wait(10)

    def launch(self, **what: Any) -> Launched:
        """Start `umbel` with `arguments` and `environment`, in `folder`, writing into `log`."""
        with self._lock:
            self._socket.sendall(json.dumps(what).encode() + b"\n")
            self._began = 0
            while not self._began:
                self._receive()
            return Launched(self, self._began)

    def status_of(self, pid: int) -> int | None:
        """Return the status of a process that has ended."""
        with self._lock:
            while select.select([self._socket], [], [], 0)[0]:
                self._receive()
            return self._ended.get(pid)

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the launcher has ended"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, pid, status = line.split()
            if word == b"began":
                self._began = int(pid)
                # The number may be that of a process before it.
                self._ended.pop(int(pid), None)
            else:
                self._ended[int(pid)] = int(status)


def serve(link: socket.socket) -> dict[str, Any]:
    """Fork for every line; return in each child what it has to do. The launcher itself ends with its tests."""
    children: dict[int, int] = {}
    lines = link.makefile("rb")
    while True:
        for ready in select.select([link, *children], [], [])[0]:
            if ready in children:
                _, status = os.waitpid(pid := children.pop(ready), 0)
                os.close(ready)
                link.sendall(f"ended {pid} {os.waitstatus_to_exitcode(status)}\n".encode())
                continue
            line = lines.readline()
            if not line:
                os._exit(0)
            pid = os.fork()
            if not pid:
                return dict(json.loads(line))
            children[os.pidfd_open(pid)] = pid
            link.sendall(f"began {pid} 0\n".encode())


def become(what: dict[str, Any]) -> list[str]:
    """Make this child the process that was asked for; return its arguments."""
    os.setsid()
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(what["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 256)
    os.chdir(what["folder"])
    sys.path[0] = what["folder"]
    os.environ.clear()
    os.environ.update(what["environment"])
    sys.argv = ["umbel", *what["arguments"]]
    # What a worker runs again where it does not fork its consumer.
    sys.orig_argv = [sys.executable, "-m", "umbel", *what["arguments"]]
    from umbel.engine import failpoints

    importlib.reload(failpoints)
    return list(what["arguments"])


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asked = become(serve(socket.socket(fileno=int(sys.argv[1]))))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from umbel.cli.main import main

    sys.exit(main(asked))
