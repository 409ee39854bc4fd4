"""What a measurement needs to stand on: an environment for each rival, a private Redis server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from systems import System

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-bench"


def interpreter(system: System) -> str:
    """Python with the system in it: our own, or an environment made now if it is missing."""
    if not system.requires:
        return sys.executable
    place = PLACE / system.name
    python, stamp = place / "bin" / "python", place / ".installed"
    wanted = "\n".join(system.requires)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(system.requires)} into {place.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, str(ROOT / "scripts" / "make_venv.py"), str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *system.requires], check=True)
        stamp.write_text(wanted)
    return str(python)


def redis_program() -> str:
    """The redis-server program; as root it is installed from Debian's packages where it is missing."""
    found = shutil.which("redis-server")
    if found:
        return found
    checker = shutil.which("redis-check-rdb")
    if not checker and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing redis-tools with apt-get", flush=True)
        subprocess.run(["apt-get", "-q", "update"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "-yq", "install", "redis-tools"], check=True, stdout=subprocess.DEVNULL)
        checker = shutil.which("redis-check-rdb")
    if not checker:
        raise SystemExit("No redis-server here: install it (Debian: apt-get install redis-server), or use --only.")
    # Debian's server and its checker are one program that goes by its name; this one starts no service.
    link = PLACE / "redis-server"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(checker)
    return str(link)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a private Redis without persistence on a free loopback port; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=10)


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    """Return when something listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on port {port} after {seconds:g} s")
