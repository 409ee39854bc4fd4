"""Named points before and after every outside effect, where a test may kill, delay or fail the process.

They do nothing unless the environment says so before the process starts:
`UMBEL_FAILPOINTS="settle.before=kill@3;publish.after=sleep(5);lease.after=raise"`. An action is `kill` (SIGKILL
to this process), `raise` (OperationalError), `sleep(seconds)` or `exit(status)`; `@n` fires at the n-th pass only,
`@n+` from the n-th on, no suffix at every pass. `UMBEL_FAILPOINTS_IN=consumer` limits it to one kind of process.
`UMBEL_FAILPOINTS_ONCE=<file>`: the first that fires creates the file (name, process id, monotonic time), and as
long as it exists none fires again, in any process.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass

from umbel.core.errors import ImproperlyConfigured, OperationalError

#: Every failpoint of the program; the test that walks them reads this list.
NAMES: tuple[str, ...] = (
    "publish.before",
    "publish.after",
    "lease.before",
    "lease.after",
    "start.before",
    "start.after",
    "extend.before",
    "extend.after",
    "recover.before",
    "recover.after",
    "adopt.before",
    "adopt.after",
    "settle.before",
    "settle.after",
    "put.before",
    "put.after",
    "revoke.before",
    "revoke.after",
    "join.before",
    "join.after",
    "expect.before",
    "expect.after",
    "confirm.before",
    "confirm.after",
    "forget.before",
    "forget.after",
    "grow.before",
    "grow.after",
    "plan.before",
    "plan.after",
    "take.before",
    "take.after",
    "send.before",
    "send.after",
    "dispatch.before",
    "dispatch.after",
    "run.before",
    "run.after",
    "report.before",
    "report.after",
)

_RULE = re.compile(
    r"^(?P<name>[a-z.]+)=(?P<action>kill|raise|sleep|exit)(\((?P<arg>[\d.]+)\))?(@(?P<nth>\d+)(?P<on>\+)?)?$"
)


@dataclass
class _Rule:
    action: str
    argument: float
    nth: int
    onwards: bool
    passes: int = 0

    def fires(self) -> bool:
        self.passes += 1
        if self.nth == 0:
            return True
        return self.passes >= self.nth if self.onwards else self.passes == self.nth


def parse(text: str) -> dict[str, _Rule]:
    """Read the value of UMBEL_FAILPOINTS; raise ImproperlyConfigured for a rule that cannot be read."""
    rules: dict[str, _Rule] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        match = _RULE.match(part)
        if match is None or match["name"] not in NAMES:
            raise ImproperlyConfigured(
                f"UMBEL_FAILPOINTS: cannot read {part!r}; write <name>=kill|raise|sleep(s)|exit(n)[@n[+]] "
                f"with a name of {', '.join(NAMES)}"
            )
        rules[match["name"]] = _Rule(
            match["action"], float(match["arg"] or 0), int(match["nth"] or 0), match["on"] is not None
        )
    return rules


_rules = parse(os.environ.get("UMBEL_FAILPOINTS", ""))
_only = os.environ.get("UMBEL_FAILPOINTS_IN", "")
_once = os.environ.get("UMBEL_FAILPOINTS_ONCE", "")
_process_kind = ""


def enter_process(kind: str) -> None:
    """Say what this process is (supervisor, consumer, executor, client): UMBEL_FAILPOINTS_IN may name one."""
    global _process_kind
    _process_kind = kind


def failpoint(name: str) -> None:
    """Do what UMBEL_FAILPOINTS says for `name`; nothing in normal life."""
    if _rules:
        _pass(name)


def _pass(name: str) -> None:
    rule = _rules.get(name)
    if rule is None or (_only and _only != _process_kind) or not rule.fires():
        return
    if _once and not _is_first(name):
        return
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "sleep":
        time.sleep(rule.argument)
    elif rule.action == "exit":
        os._exit(int(rule.argument))
    else:
        raise OperationalError(f"failpoint {name} was told to fail by UMBEL_FAILPOINTS")


def _is_first(name: str) -> bool:
    try:
        descriptor = os.open(_once, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    os.write(descriptor, f"{name} {os.getpid()} {time.monotonic()}\n".encode())
    os.close(descriptor)
    return True
