"""An executor with nothing else to do goes on by itself with what follows from its task: this is the consumer's side.

A chain would otherwise travel through the queue, and through the consumer, at every step. The executor says what it
is about to store, stores it together with the lease of what follows (`umbel.worker.next_step`), and begins that once
it is held. Here is followed what it does. When nobody knows whether a step was stored, the consumer makes the same
call again, which is answered as the first was.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from umbel.app.execution import Job, Report
from umbel.core.message import Delivery
from umbel.engine.clock import Clock
from umbel.engine.seam import FollowUps
from umbel.worker.admission import Admitted
from umbel.worker.assigning import again, settlement_of
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.executor import Up
from umbel.worker.feeder import Feeder
from umbel.worker.next_step import MOST
from umbel.worker.settler import Settler
from umbel.worker.tally import Tally
from umbel.worker.tickets import lane_of, packed

#: How long another thread waits until reports have been taken in (seconds).
_CATCH_UP = 1.0


class GoingOn:
    """Lets executors go on, and keeps count of what they go on with."""

    def __init__(
        self, crew: Crew, feeder: Feeder, settler: Settler, follow_ups: FollowUps, owner: str, clock: Clock
    ) -> None:
        self._crew = crew
        self._feeder = feeder
        self._settler = settler
        self._follow_ups = follow_ups
        self._owner = owner
        self._clock = clock
        #: Executors (by index) of whose last step nobody knows yet whether it was stored.
        self._asked: set[int] = set()
        #: Other threads that wait until reports have been taken in.
        self._behind: deque[threading.Event] = deque()

    def allow(self, member: Member, assigned: Assigned, job: Job) -> None:
        """Let an executor go on after this job, as long as it has no other and nothing waits here."""
        if len(member.assigned) != 1 or assigned.is_async or assigned.concluding or member.index in self._asked:
            return
        if assigned.delivery.doubtful or not self._feeder.nothing_waits():
            return
        self._feeder.assigner.reserve(MOST)
        job.held = self._follow_ups.pack_tag(assigned.delivery.tag)
        member.slot.allow(assigned.number)

    def follow(self, member: Member, reports: list[Report], tally: Tally) -> list[Report]:
        """Take in after which jobs an executor goes on by itself; return the reports of the others."""
        steps = [report for report in reports if report.next]
        if not steps:
            return reports
        ended = member.assigned.get(steps[0].number)
        if ended is not None:
            tally.add(ended, steps[0])
            self._crew.advance(member, ended.number, self._reached(ended.delivery, steps, tally))
        return [report for report in reports if not report.next]

    def _reached(self, delivery: Delivery, steps: list[Report], tally: Tally) -> Assigned:
        """Return the job that an executor has come to; `delivery` is that of the first step's."""
        for report in steps:
            if report is not steps[0]:
                tally.add_run(delivery.task, report.runtime)
            settlement = settlement_of(delivery, report)
            found = self._follow_ups.leased(settlement)
            assert found is not None
            delivery = found
            if self._feeder.received is not None:
                self._feeder.received(delivery)
        following = self._feeder.assigner.assigned(Admitted(delivery), steps[-1].next)
        following.follows = settlement
        return following

    def catch_up(self, wake: Callable[[], None]) -> None:
        """Wait until what executors have said is known: who goes on by itself does not ring. For other threads."""
        done = threading.Event()
        self._behind.append(done)
        wake()
        done.wait(_CATCH_UP)

    def caught_up(self, take_reports: Callable[[], object]) -> None:
        """Take in reports for those who wait for that."""
        behind = [self._behind.popleft() for _ in range(len(self._behind))]
        take_reports()
        for one in behind:
            one.set()

    def not_held(self, member: Member, said: Up) -> None:
        """Take in that what was to be gone on with has gone into its queue, or may have."""
        self._crew.take_back(member, said.queued)
        for assigned in self._crew.take_back(member, said.unsure):
            if assigned is not None:
                self.ask(member, assigned)

    def ask(self, member: Member, assigned: Assigned) -> bool:
        """Find out whether a follow-up is held, which nobody has begun, and see to it if so; False if it is none."""
        settlement = assigned.follows
        if settlement is None:
            return False
        self._asked.add(member.index)
        lane, ticket = lane_of(member.index, member.pid), packed(assigned.number, member.index, assigned.early)

        def call() -> None:
            gone = self._follow_ups.go_on(self._owner, lane, ticket, settlement, self._clock.now())
            self._asked.discard(member.index)
            if gone.held:
                self._feeder.give_back([again(assigned)])
            else:
                self._feeder.room()

        self._settler.call(call)
        return True
