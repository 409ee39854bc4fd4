"""Where the servers' programs are; on Debian, as root, they are installed when they are missing.

`UMBEL_TEST_REDIS=/path/valkey-server` names another program that is to be tested with in the place of redis-server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Debian's start scripts ask this file whether a service may start; 101 is "no".
POLICY = Path("/usr/sbin/policy-rc.d")
#: package → the program that it brings. RabbitMQ's wrapper changes the user, what it wraps does not.
PROGRAMS = {"redis-server": "redis-server", "rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server"}
#: package → the variable that names another program in its place.
OTHERS = {"redis-server": "UMBEL_TEST_REDIS"}
SERVER_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/rabbitmq/sbin")
INSTALL_SECONDS = 600


def program(package: str) -> str | None:
    """Path of the program that a package brings, or None where it is not installed."""
    variable = OTHERS.get(package, "")
    chosen = os.environ.get(variable)
    if chosen:
        if shutil.which(chosen) is None:
            raise FileNotFoundError(f"{variable} names {chosen}, which is no program")
        return chosen
    name = PROGRAMS[package]
    if os.path.isabs(name):
        if os.access(name, os.X_OK):
            return name
        name = package
    path = os.pathsep.join([os.environ.get("PATH", ""), *SERVER_FOLDERS])
    return shutil.which(name, path=path)


def missing(*packages: str) -> list[str]:
    """Install what is missing, where that is possible; say for each package that stays missing why."""
    absent = [name for name in packages if program(name) is None]
    if not absent:
        return []
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return [f"{name} is not installed, and only root on Debian can be helped (apt-get install)" for name in absent]
    with _lock("install"):
        absent = [name for name in packages if program(name) is None]
        said = _install(absent) if absent else ""
    return [f"{name} could not be installed:\n{said}" for name in absent if program(name) is None]


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """Hold a lock that all processes of this machine respect."""
    path = Path(tempfile.gettempdir()) / f"umbel-tests-{os.getuid()}-{name}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(packages: list[str]) -> str:
    """Run apt-get without letting the packages start services; give the end of what it said."""
    print(f"servers: installing {', '.join(packages)} with apt-get", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-yq", "-o", "DPkg::Lock::Timeout=300", "install", "--no-install-recommends", *packages]
    with _no_services():
        said = ""
        for command in (install, ["apt-get", "-q", "update"], install):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
            said = (done.stdout + done.stderr)[-2000:]
            if command is install and done.returncode == 0:
                break
    return said


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep freshly installed services from starting on their default ports."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
