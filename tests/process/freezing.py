"""Workers that are frozen with messages in hand, and that wake up again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.process.checker import Final
from tests.process.lab import Lab, Worker, wait


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


def wake_after_takeover(
    lab: Lab, settings: dict[str, Any], freeze: Callable[[Lab, list[int]], None]
) -> tuple[Worker, dict[str, Final]]:
    """Let another worker take over three early tasks that a frozen executor holds, then wake the frozen one.

    Return the worker that was frozen, and how the tasks have ended.
    """
    gate = lab.folder / "gate"
    first = lab.worker("-c", "1", settings=settings)
    ids = fill_executor(lab, gate)
    pids, executors = first.everybody(), first.executors()
    freeze(lab, pids)
    gate.touch()
    lab.worker("-c", "1", settings=settings)
    finals = lab.wait_states(ids)
    assert [finals[id].error or finals[id].state for id in ids] == ["WorkerLostError", "SUCCESS", "SUCCESS"]
    # The executor has all the time it wants before its consumer sees that the leases have lapsed.
    thaw(lab, executors)
    wait(lambda: ids[0] in lab.journal.ids("end"), 15, "the end of what ran there")
    thaw(lab, pids)
    return first, finals
