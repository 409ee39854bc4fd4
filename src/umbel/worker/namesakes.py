"""Workers of one name: each greets the others at its start, and both say so, because status and control mix them up."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
from typing import Any

from umbel.engine.seam import Bus

__all__ = ["METHOD", "Namesakes"]

logger = logging.getLogger("umbel.worker")

#: The command that carries a greeting; Celery has none of this name.
METHOD = "greet"


class Namesakes:
    """Sends this worker's greeting, and answers that of another one."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._me = {"worker": secrets.token_hex(8), "pid": os.getppid(), "host": socket.gethostname()}

    def greet(self, bus: Bus, topic: str, now: float, *, answers: bool = False) -> None:
        """Tell workers of the same name that there is another one."""
        greeting = {"method": METHOD, "destination": [self._hostname], "arguments": {**self._me, "answers": answers}}
        bus.send(topic, [json.dumps(greeting).encode()], now)

    def is_answer_due(self, greeting: dict[str, Any]) -> bool:
        """Warn of another worker; tell whether it has to hear of this one."""
        if greeting.get("worker") == self._me["worker"]:
            return False
        logger.warning(
            "Another worker is called %s too (process %s on %s). Tasks are safe, but status, inspect and control "
            "cannot tell the two apart: give each a name of its own: umbel worker -n NAME@%%h",
            self._hostname,
            greeting.get("pid"),
            greeting.get("host"),
        )
        return not greeting.get("answers")
