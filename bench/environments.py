"""What a measurement needs to stand on: an environment for each rival."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from systems import System

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-bench"


def interpreter(system: System) -> str:
    """Python with the system in it: our own, or an environment made now if it is missing."""
    if not system.requires:
        return sys.executable
    place = PLACE / (system.place or system.name)
    python, stamp = place / "bin" / "python", place / ".installed"
    wanted = "\n".join(system.requires)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(system.requires)} into {place.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, str(ROOT / "scripts" / "make_venv.py"), str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *system.requires], check=True)
        stamp.write_text(wanted)
    return str(python)
