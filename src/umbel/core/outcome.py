"""What running a task gave, and the one table that says what follows from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from umbel.core import states
from umbel.core.message import End


class Kind(enum.StrEnum):
    """How a run ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    IGNORE = "ignore"
    #: Reject(requeue=False): the message ends as a failure (Celery 5.7 stores FAILURE).
    REJECT = "reject"
    #: Reject(requeue=True): back to the queue.
    REQUEUE = "requeue"
    #: Revoked or expired before it started, or terminated while running.
    REVOKED = "revoked"
    #: Killed because it passed its hard time limit.
    TIMEOUT = "timeout"
    #: The process that ran it died.
    LOST = "lost"
    #: Others go on under its id (`Task.replace`), or it was umbel's own and ends by what it sends.
    REPLACED = "replaced"


@dataclass
class Outcome:
    """One run's end, as a value. `value` is the return value, `exc` what was raised (or made for a lost one)."""

    kind: Kind
    value: Any = None
    exc: BaseException | None = None
    #: Formatted traceback; None where there is none.
    traceback: str | None = None
    #: Seconds that the task's own code took.
    runtime: float = 0.0
    #: The follow-up of a RETRY, ready to be published.
    retry: Any = None


@dataclass(frozen=True)
class Policy:
    """What the task (or the configuration) says about its ends."""

    acks_late: bool = False
    acks_on_failure: bool = True
    acks_on_timeout: bool = True
    #: None and True: a late-acknowledged task runs again when its process died; False: it has failed.
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool = False
    ignore_result: bool = False
    store_errors: bool = False
    max_crashes: int = 3


@dataclass(frozen=True)
class Effects:
    """What to do about an outcome: the state to store (None: none) and how the lease ends."""

    state: str | None
    end: End
    #: Whether callbacks (success) or errbacks (failure) are published.
    callbacks: bool = False
    errbacks: bool = False


_TABLE: dict[Kind, Effects] = {
    Kind.SUCCESS: Effects(states.SUCCESS, End.DONE, callbacks=True),
    Kind.FAILURE: Effects(states.FAILURE, End.DONE, errbacks=True),
    Kind.RETRY: Effects(states.RETRY, End.DONE),
    Kind.IGNORE: Effects(None, End.DONE),
    Kind.REJECT: Effects(states.FAILURE, End.DONE, errbacks=True),
    Kind.REQUEUE: Effects(None, End.REQUEUE),
    Kind.REVOKED: Effects(states.REVOKED, End.DONE, errbacks=True),
    Kind.TIMEOUT: Effects(states.FAILURE, End.DONE, errbacks=True),
    Kind.LOST: Effects(states.FAILURE, End.DONE, errbacks=True),
    Kind.REPLACED: Effects(None, End.DONE),
}

_LATE_LOST = Effects(None, End.CRASHED)
_LATE_LOST_FOR_GOOD = Effects(states.FAILURE, End.DEAD, errbacks=True)
_LATE_TIMEOUT = Effects(None, End.REQUEUE)
#: acks_on_failure=False rejects the message: it can be looked at and sent again among the dead letters.
_LATE_FAILURE = Effects(states.FAILURE, End.DEAD, errbacks=True)


def decide(kind: Kind, policy: Policy, crashes: int = 0) -> Effects:
    """Return the effects of an outcome under a policy.

    `crashes` counts the process deaths of this message before this one. A late-acknowledged task whose process
    died runs again until `max_crashes` deaths, then it is a dead letter and a failure; an early one has failed.
    """
    if not policy.acks_late:
        return _TABLE[kind]
    if kind is Kind.LOST and policy.reject_on_worker_lost is not False:
        return _LATE_LOST_FOR_GOOD if crashes + 1 >= policy.max_crashes else _LATE_LOST
    if kind is Kind.TIMEOUT and not policy.acks_on_timeout:
        return _LATE_TIMEOUT
    if kind is Kind.FAILURE and not policy.acks_on_failure:
        return _LATE_FAILURE
    return _TABLE[kind]


def stored_state(effects: Effects, policy: Policy) -> str | None:
    """Return the state to store once `ignore_result` and `store_errors_even_if_ignored` have had their say."""
    if effects.state is None or not policy.ignore_result:
        return effects.state
    if policy.store_errors and effects.state in states.PROPAGATE_STATES:
        return effects.state
    return None
