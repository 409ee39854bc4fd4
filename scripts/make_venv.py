"""Make a virtual environment with pip in it, on machines where half of the usual tools are missing.

    python3 scripts/make_venv.py DIRECTORY

Only the standard library is used. Debian ships Python without `ensurepip`, so the plain way may fail there;
then pip is taken from whatever the machine has, and as root from Debian's own package. An environment that
works is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
# pip learned `--group` (dependency groups of pyproject.toml) in this version.
PIP = "pip>=25.1"


def succeeds(*command: str, quiet: bool = True) -> bool:
    """Run a command and tell whether it went well."""
    sink = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, stdout=sink, stderr=sink, check=False).returncode == 0


def python_of(directory: Path) -> str:
    """Path of the environment's interpreter."""
    return str(directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def works(directory: Path) -> bool:
    """Tell whether the directory is an environment with pip in it."""
    return Path(python_of(directory)).exists() and succeeds(python_of(directory), "-m", "pip", "--version")


def plainly(directory: Path) -> bool:
    """Make it as the Python manual says."""
    return succeeds(sys.executable, "-I", "-m", "venv", "--clear", str(directory)) and works(directory)


def with_pip_of_the_machine(directory: Path) -> bool:
    """Make it without pip, then let a pip found elsewhere install pip into it."""
    if not succeeds(sys.executable, "-I", "-m", "venv", "--clear", "--without-pip", str(directory)):
        return False
    target = python_of(directory)
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    runners = [[target, f"{wheel}/pip", "install"] for wheel in wheels]
    runners.append([sys.executable, "-m", "pip", "--python", target, "install"])
    return any(succeeds(*runner, "-q", PIP) and works(directory) for runner in runners)


def with_virtualenv(directory: Path) -> bool:
    """Make it with the `virtualenv` program."""
    program = shutil.which("virtualenv")
    return bool(program) and succeeds(str(program), "-p", sys.executable, str(directory)) and works(directory)


def with_debian_package(directory: Path) -> bool:
    """Install Debian's package that completes `venv` (needs root), then make it plainly."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("venv: this Python lacks ensurepip; installing python3-venv with apt-get", flush=True)
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    succeeds("apt-get", "-q", "update")
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}-venv", "python3-venv")
    return any(succeeds("apt-get", "-yq", "install", name) and plainly(directory) for name in names)


WAYS = (plainly, with_pip_of_the_machine, with_virtualenv, with_debian_package)


def main(arguments: list[str]) -> int:
    """Make the environment named on the command line; 0 when it stands."""
    if len(arguments) != 1:
        print("usage: python3 scripts/make_venv.py DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"venv: {sys.executable} is Python {found}; umbel needs 3.11 or newer.", file=sys.stderr)
        print("Name one that is: make PYTHON=/path/to/python3.11 …", file=sys.stderr)
        return 1
    if works(directory):
        return 0
    if any(way(directory) for way in WAYS):
        return 0
    print(f"venv: could not make {directory} with {sys.executable}.", file=sys.stderr)
    print("It has no ensurepip, and no pip or virtualenv was found. On Debian and Ubuntu run", file=sys.stderr)
    print("    sudo apt-get install python3-venv", file=sys.stderr)
    print("and try again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
