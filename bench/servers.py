"""Private servers on free loopback ports: a new Redis for every measurement, one RabbitMQ with a vhost for each.

Redis runs without persistence, RabbitMQ as Debian installs it (classic durable queues, persistent messages).
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environments import PLACE

_RABBITMQ = Path("/usr/lib/rabbitmq/bin")
_NEW_VHOST = (
    'rabbit_vhost:add(<<"{name}">>, <<"guest">>), rabbit_auth_backend_internal:set_permissions('
    '<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>).'
)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    """Return when something listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on port {port} after {seconds:g} s")


def installed(package: str) -> None:
    """Install one of Debian's packages, where we may."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"This needs a server that is not here: install {package} (Debian: apt-get install {package})")
    print(f"installing {package} with apt-get", flush=True)
    subprocess.run(["apt-get", "-q", "update"], check=False, stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "-yq", "install", package], check=True, stdout=subprocess.DEVNULL)


def redis_program() -> str:
    """The redis-server program; as root it is installed from Debian's packages where it is missing."""
    found = shutil.which("redis-server")
    if found:
        return found
    if not shutil.which("redis-check-rdb"):
        installed("redis-tools")
    # Debian's server and its checker are one program that goes by its name; this one starts no service.
    link = PLACE / "redis-server"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(str(shutil.which("redis-check-rdb")))
    return str(link)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a private Redis without persistence; gives its URL."""
    port = free_port()
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=10)


class RabbitMQ:
    """A private RabbitMQ with an Erlang port mapper of its own."""

    def __init__(self, folder: Path) -> None:
        self._port, ports = free_port(), free_port()
        self._numbers = itertools.count(1)
        config = folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.local = 127.0.0.1:{self._port}\nlog.console = false\nloopback_users = none\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(ports),
            "RABBITMQ_NODENAME": f"bench{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        }
        (folder / "plugins").write_text("[].\n")
        self._log = (folder / "server.log").open("w")
        self._server = subprocess.Popen(
            [str(_RABBITMQ / "rabbitmq-server")],
            env=self._environment,
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
        )
        wait_for_port(self._port, 90.0)
        self._tell("await_startup")

    def _tell(self, *words: str) -> None:
        subprocess.run(
            [str(_RABBITMQ / "rabbitmqctl"), "-q", *words],
            env=self._environment,
            check=True,
            stdout=self._log,
            stderr=self._log,
            timeout=90,
        )

    def new_vhost(self) -> str:
        """The URL of a virtual host that nobody has used."""
        name = f"bench{next(self._numbers)}"
        self._tell("eval", _NEW_VHOST.format(name=name))
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{name}"

    def close(self) -> None:
        """Stop the server, and the port mapper that it started."""
        self._server.terminate()
        try:
            self._server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        epmd = shutil.which("epmd") or "epmd"
        with self._log:
            subprocess.run([epmd, "-kill"], env=self._environment, check=False, stdout=self._log, stderr=self._log)


@contextmanager
def rabbitmq_server(folder: Path) -> Iterator[RabbitMQ]:
    """Run a private RabbitMQ; as root it is installed from Debian's packages where it is missing."""
    if not (_RABBITMQ / "rabbitmq-server").exists():
        installed("rabbitmq-server")
    server = RabbitMQ(folder)
    try:
        yield server
    finally:
        server.close()
