"""An executor goes on by itself with what follows from its task: the executor's side of `umbel.worker.going_on`.

The outcome is stored and its follow-up leased by one call to the engine, so that neither travels through the consumer.
Whatever else waits keeps its turn: the follow-up goes into its queue where that is not empty, as soon as the consumer
has other work, and after so many steps in a row.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NamedTuple

from umbel.app.canvas.publishing import ahead_of
from umbel.app.execution import Job, Report, Runner
from umbel.app.following import piece_after
from umbel.app.running import Call
from umbel.app.traits import traits_of
from umbel.core.errors import OperationalError
from umbel.core.message import End, Message, Settlement
from umbel.engine.clock import SYSTEM_CLOCK
from umbel.engine.seam import FollowUps, Pieces
from umbel.worker.first_contact import consumed
from umbel.worker.options import WorkerOptions
from umbel.worker.progress import Slot
from umbel.worker.rates import RateLimits
from umbel.worker.tickets import lane_of, packed

#: Follow-ups in a row, and seconds, for which an executor is kept before others have a turn.
MOST, _LONGEST = 100, 0.2
#: Larger messages (bytes of head and body) take the ordinary way, which is made for them.
_LARGEST = 16 * 1024


def goes_on(app: Any, options: WorkerOptions) -> bool:
    """Tell whether executors of this worker may go on by themselves: as processes that share an engine which can."""
    engine = app.engine
    return options.pool == "prefork" and engine.atomic is not None and engine.follow_ups is not None


class Step(NamedTuple):
    """A job that an executor may go on with, and what has to be stored for it."""

    job: Job
    tag: Any
    settlement: Settlement
    ticket: int


class Next(NamedTuple):
    """A job that an executor goes on with; its message has been read, unless something is wrong with it."""

    job: Job
    call: Call | None


class NextSteps:
    """Goes on from one job to the next in one executor."""

    def __init__(self, runner: Runner, options: WorkerOptions, owner: str, index: int, slot: Slot) -> None:
        app = self._app = runner.app
        self._runner = runner
        self._ahead = ahead_of(app)
        self._owner = owner
        self._index = index
        self._lane = lane_of(index, os.getpid())
        self._slot = slot
        self._follow_ups: FollowUps = app.engine.follow_ups
        self._queues = frozenset(consumed(app, options))
        self._rates = RateLimits(app, disabled=options.disable_rate_limits)
        #: Task name → whether it is acknowledged early; None for one that goes the ordinary way.
        self._early: dict[str, bool | None] = {}
        #: The number of the job that was given by the consumer, and the handle of the lease at hand.
        self._first = 0
        self._tag: Any = None
        #: When that job began (monotonic time).
        self._begun = 0.0

    def after(self, job: Job, report: Report) -> Step | None:
        """Return the step that may follow a job with this report; None where the consumer is to see to it."""
        if job.held:
            self._first, self._tag, self._begun = job.number, None, self._slot.since()
        if len(report.publish) != 1 or report.end != End.DONE or report.parts:
            return None
        if not self._first <= job.number < self._first + MOST or self._slot.allowed() != self._first:
            return None
        if SYSTEM_CLOCK.monotonic() - self._begun > _LONGEST:
            return None
        early = self._is_early(report.publish[0])
        if early is None:
            return None
        if job.held:
            self._tag = self._follow_ups.unpack_tag(job.held)
        settlement = Settlement(self._tag, job.token, End.DONE, report.record, tuple(report.publish))
        delivery = self._follow_ups.leased(settlement)
        if delivery is None:
            return None
        d, number = delivery, job.number + 1
        following = Job(
            number, d.id, d.task, d.queue, d.exchange, d.head, d.body, d.generation, d.crashes, d.token, d.priority
        )
        return Step(following, d.tag, settlement, packed(number, self._index, early))

    def go_on(self, step: Step) -> Next | None:
        """Store the step; return the job that is held then, None where it has gone into its queue.

        Its message is read while that is on its way, and so is the piece of the workflow that comes after it. Raises
        OperationalError where nobody knows.
        """
        call: Call | None = None
        key = ""

        def prepare() -> str:
            nonlocal call, key
            with suppress(Exception):
                call = self._runner.prepare(step.job)
                key = "" if call is None else piece_after(call.request)
            return key

        now, kept, ahead = SYSTEM_CLOCK.now(), self._app.conf.result_expires, self._ahead
        used, ahead.used = ahead.used, []
        ahead.pieces.clear()
        pieces = Pieces(prepare, used, now + kept if kept else 0.0)
        try:
            gone = self._follow_ups.go_on(self._owner, self._lane, step.ticket, step.settlement, now, pieces)
        except OperationalError:
            ahead.used += used
            raise
        if not gone.held:
            return None
        if gone.piece is not None:
            ahead.pieces[key] = gone.piece
        self._tag = step.tag
        return Next(step.job, call)

    def let_go(self) -> None:
        """Let the store drop the pieces that were used for an outcome which goes the ordinary way."""
        used, self._ahead.used = self._ahead.used, []
        if used:
            now, kept = SYSTEM_CLOCK.now(), self._app.conf.result_expires
            with suppress(OperationalError):
                self._app.store.take_plans(used, now, now + kept if kept else 0.0)

    def _is_early(self, message: Message) -> bool | None:
        """Tell whether a follow-up is acknowledged early; None if it is none that this executor may run at once."""
        if message.queue not in self._queues or len(message.head) + len(message.body) > _LARGEST:
            return None
        try:
            return self._early[message.task]
        except KeyError:
            pass
        early, task = None, self._app.tasks.get(message.task)
        if task is not None and not self._rates.limits(message.task):
            traits = traits_of(task)
            early = None if traits.is_async else not traits.keeping.acks_late
        self._early[message.task] = early
        return early
