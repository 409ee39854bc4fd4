"""How a task ends when no executor is left to conclude it: its state is stored, its handlers are not called.

What follows it hears of it all the same: its chord at once, errbacks and later steps by a task of umbel's own; and
`retry_failed` can run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from umbel.app.conclusions import consequences, keep_unrun
from umbel.app.records import record_of
from umbel.core import states
from umbel.core.errors import NotRegistered, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from umbel.core.head_reader import reply_to_of
from umbel.core.message import Delivery, End, Message, Settlement

#: Verdict → state, class of the exception, and how the lease ends.
_ENDINGS: dict[str, tuple[str, type[Exception], End]] = {
    "lost": (states.FAILURE, WorkerLostError, End.DONE),
    "timeout": (states.FAILURE, TimeLimitExceeded, End.DONE),
    "terminated": (states.REVOKED, TaskRevokedError, End.DONE),
    "revoked": (states.REVOKED, TaskRevokedError, End.DONE),
    "expired": (states.REVOKED, TaskRevokedError, End.DONE),
    "unknown": (states.FAILURE, NotRegistered, End.DEAD),
}
#: Verdicts about a run that has happened: such a message must not go back as if it had not.
FINAL = frozenset({"lost", "timeout", "terminated"})


def plain_ending(
    app: Any, delivery: Delivery, verdict: str, text: str, *, now: float, dead: bool = False
) -> Settlement:
    """Return the settlement of a verdict without handlers; `dead` keeps the message among the dead letters."""
    state, error, end = _ENDINGS.get(verdict, _ENDINGS["lost"])
    exc = error(text)
    record = None
    if app.store is not None:
        record = record_of(app, delivery.id, state, exc, now=now, reply_to=reply_to_of(delivery.head))
    if state == states.FAILURE:
        keep_unrun(app, delivery)
    others = consequences(app, delivery, exc, state)
    return Settlement(
        delivery.tag,
        delivery.token,
        End.DEAD if dead else end,
        record,
        others.publish,
        reason=f"{verdict or 'lost'}: {text}",
        parts=others.parts,
    )


def sent_again(messages: Iterable[Message]) -> tuple[Delivery, ...]:
    """Return messages that somebody who died may have sent: a copy of what has ended by then does not run."""
    return tuple(Delivery(**msgspec.structs.asdict(message), doubtful=True) for message in messages)
