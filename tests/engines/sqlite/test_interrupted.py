"""What a signal's handler cuts off by raising leaves nothing behind."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from pathlib import Path

from umbel.engine.registry import open_engine
from umbel.testing.conformance import message


class Interrupted(Exception):
    """What the handler raises, as that of a soft time limit does."""


def test_publishing_that_a_signal_cuts_off_leaves_no_transaction_open(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    engine = open_engine(f"sqlite:///{tmp_path}/q.db")
    assert engine.broker is not None
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(300):
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0003, 0.003))
            until = time.monotonic() + 1
            with contextlib.suppress(Interrupted):
                while time.monotonic() < until:
                    engine.broker.publish([message(f"cut-{number}")], time.time())
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert engine.broker.publish([message(f"whole-{number}")], time.time()) == []
    finally:
        signal.signal(signal.SIGALRM, before)
        engine.close()
