"""Workers that are frozen with messages in hand, and that wake up again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.process.lab import Lab


def thaw(lab: Lab, pids: list[int]) -> None:
    """Let frozen processes go on."""
    lab.journal.write("resume", pids=pids)
    for pid in pids:
        # The first to wake may have ended the others already.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def fill_executor(lab: Lab, gate: Path) -> list[str]:
    """Give the only executor three early tasks at once, and return their ids; the first runs until `gate` is there."""
    gate.touch()
    lab.wait_states(lab.send_many("lab.held_early", 20, str(gate)))
    # Known as short now, several are handed over together.
    gate.unlink()
    ids = lab.send_many("lab.held_early", 3, str(gate))
    lab.wait_started(ids[0])
    return ids
