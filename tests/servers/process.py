"""A private server process: started, killed, frozen and started again; gone with the test process at the latest."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar, Self

#: Below the ports that the system gives to outgoing connections: a server restarts on the port it had.
PORTS = range(12_000, 32_000)


class ServerFailedError(Exception):
    """A server did not start or did not answer; the text ends with its log."""


def free_port() -> int:
    """Find a loopback port that nobody uses."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
    raise ServerFailedError("no free port found on 127.0.0.1")


class Keeper:
    """The process that cleans up after this one; started when first needed, once a process."""

    _of: ClassVar[dict[int, subprocess.Popen[str]]] = {}

    @classmethod
    def tell(cls, line: str) -> None:
        """Say what is to be cleaned up, or no longer."""
        keeper = cls._of.get(os.getpid())
        if keeper is None:
            command = [sys.executable, "-IS", str(Path(__file__).with_name("keeper.py"))]
            keeper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
            cls._of[os.getpid()] = keeper
        assert keeper.stdin is not None
        keeper.stdin.write(line + "\n")
        keeper.stdin.flush()

    @classmethod
    def stop(cls) -> None:
        """End it, and with it every server of this process that still runs."""
        keeper = cls._of.pop(os.getpid(), None)
        if keeper is not None:
            keeper.communicate()


class Server:
    """One server process in a temporary folder. What runs is killed by `close`, or when the test process ends."""

    #: Seconds until a server that does not answer has failed.
    START_SECONDS: ClassVar[float] = 40.0

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="umbel-server-"))
        Keeper.tell(f"folder {self.folder}")
        self.log = self.folder / "log.txt"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What to run."""
        raise AssertionError("each server says what to run")

    def environment(self) -> dict[str, str]:
        """The environment to run it in."""
        return dict(os.environ)

    def answers(self) -> bool:
        """Tell whether the server does its work; may raise OSError."""
        raise AssertionError("each server says when it answers")

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerFailedError("the server does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and return when it answers. Raises `ServerFailedError` with its log."""
        if self.running:
            return self
        process = self._process = self._spawn(self.command(), self.environment())
        deadline = time.monotonic() + self.START_SECONDS
        while not self._answers():
            ended = process.poll()
            if ended is not None or time.monotonic() > deadline:
                why = "does not answer" if ended is None else f"ended with {ended}"
                self.kill()
                raise ServerFailedError(f"{self.command()[0]} {why}; its log:\n{self.log_text()}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """Kill it with SIGKILL: nothing is written, no connection is closed properly."""
        self._end(signal.SIGKILL, 10.0)

    def stop(self) -> None:
        """Stop it in its own proper way."""
        self._end(signal.SIGTERM, 20.0)

    def restart(self) -> Self:
        """Stop it and start it again: same port, same data as far as it keeps any."""
        self.stop()
        return self.start()

    def freeze(self) -> None:
        """Stop the process in its tracks (SIGSTOP): connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self) -> str:
        """The end of what the server has written."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else "(no log)"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        Keeper.tell(f"pid {process.pid}")
        return process

    def _answers(self) -> bool:
        try:
            return self.running and self.answers()
        except OSError:
            return False

    def _end(self, number: int, seconds: float) -> None:
        if self._process is None:
            return
        end_process(self._process, number, seconds)
        self._process = None


def end_process(process: subprocess.Popen[bytes], number: int, seconds: float) -> None:
    """Send a signal and wait; after so many seconds send SIGKILL."""
    if process.poll() is None:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    Keeper.tell(f"gone {process.pid}")
