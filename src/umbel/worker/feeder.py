"""Leases messages and hands them to executors: as many as can start, few more, and never behind a long task."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from umbel.app.execution import Job
from umbel.app.traits import traits_of
from umbel.core.errors import OperationalError
from umbel.core.message import Delivery, End, Settlement
from umbel.engine.clock import Clock
from umbel.engine.failpoints import failpoint
from umbel.engine.seam import Broker, Lease, Store
from umbel.worker import admission
from umbel.worker.admission import Admitted
from umbel.worker.assigning import Assigner, again, job_of
from umbel.worker.copies import ended_before, ended_meanwhile, is_doubtful, sort_out
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.endings import FINAL
from umbel.worker.options import WorkerOptions
from umbel.worker.rates import RateLimits
from umbel.worker.revocations import revoked_among, revoked_meanwhile
from umbel.worker.service import Service
from umbel.worker.settler import Settler
from umbel.worker.tickets import packed

logger = logging.getLogger("umbel.worker")

#: How long an idle lease call waits for a message (seconds); `wake` ends it earlier.
_IDLE_WAIT = 10.0
#: The most messages one lease call asks for.
_MAX_LEASE = 400
#: Outcomes waiting to be stored beyond which nothing more is leased.
_MAX_UNSETTLED = 4000
#: How much earlier than this worker others may take what it does not know (seconds).
_HEAD_START = 0.5
#: Pause after the broker failed: first and last (seconds).
_PAUSE_FIRST, _PAUSE_LAST = 0.2, 5.0


@dataclass
class Feeder(Service):
    """The lease and dispatch loop of one session."""

    broker: Broker
    store: Store | None
    lease: Lease
    clock: Clock
    app: Any
    crew: Crew
    settler: Settler
    options: WorkerOptions
    was_started: Callable[[str, int, int], bool]
    name = "feeder"
    backlog: deque[Admitted] = field(default_factory=deque)
    leasing: bool = True
    #: Called with each delivery that was taken in, when somebody listens to `task_received`.
    received: Callable[[Delivery], None] | None = None
    #: Called before the broker is used again after it failed: makes the queues exist.
    rebuild: Callable[[], None] = lambda: None
    #: Revocations are asked for after `start`, which has looked (`caps.start_looks`), and not when messages come.
    starting_looks: bool = False
    #: Lets an executor go on by itself after the only job that it is given.
    lets_go_on: Callable[[Member, Assigned, Job], None] | None = None
    #: When messages were last leased (monotonic time); what it waits for, if anything, is up to the broker.
    leased_at: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._rung = False
        self._returned: deque[Admitted] = deque()
        #: Leased and not looked at yet: kept here so that a failing look loses none.
        self._unadmitted: deque[Delivery] = deque()
        self._strangers: set[tuple[str, str]] = set()
        #: Task name → until when its messages are left to other workers (epoch seconds).
        self._left: dict[str, float] = {}
        self._rates = RateLimits(self.app, disabled=self.options.disable_rate_limits)
        self._parked: list[Admitted] = []
        #: Whether something waits here that may be a copy.
        self._doubts = False
        #: The broker expects another call of `lease`.
        self._expected = False
        self.assigner = Assigner(self.app, self.options, self.crew.runtimes)

    # --- called by other threads -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the loop look around, even from a lease call that waits."""
        with self._changed:
            self._rung = True
            self._changed.notify()
        self.broker.wake()

    def room(self) -> None:
        """Say that an executor has room again (cheaper than `wake`: a waiting lease call is left alone)."""
        with self._changed:
            self._rung = True
            self._changed.notify()

    def give_back(self, items: Sequence[Admitted]) -> None:
        """Take in deliveries that came back unstarted, or that must be concluded; they go first."""
        self._returned.extend(items)
        self.wake()

    def take_recovered(self, deliveries: Sequence[Delivery]) -> None:
        """Take in deliveries whose former owner died."""
        settlements, waiting, ended = list[Settlement](), list[Delivery](), list[Admitted]()
        for delivery in deliveries:
            task = self.app.tasks.get(delivery.task)
            policy = traits_of(task).keeping if task is not None else None
            item = admission.recovered(delivery, self.was_started, policy)
            if isinstance(item, Settlement):
                settlements.append(item)
            elif item.verdict:
                ended.append(item)
            else:
                waiting.append(delivery)
        logger.warning(
            "Took over %d messages of a worker that died: %d of them were running, %d had only been waiting",
            len(deliveries),
            len(ended) + len(settlements),
            len(waiting),
        )
        self.settler.put(settlements)
        self._unadmitted.extend(waiting)
        self.give_back(ended)

    def release_all(self) -> list[Admitted]:
        """Give every message that has not been dispatched back to the broker, no attempt used.

        Return those that have run and only wait for their conclusion; they must not go back.
        """
        items = [*self._returned, *self.backlog, *self._parked]
        for queue in (self._returned, self.backlog, self._parked):
            queue.clear()
        deliveries = [item.delivery for item in items if item.verdict not in FINAL]
        self.settler.put([_release(delivery) for delivery in (*deliveries, *self._unadmitted)])
        self._unadmitted.clear()
        return [item for item in items if item.verdict in FINAL]

    def drop(self, ids: set[str]) -> list[str]:
        """Mark waiting deliveries of these task ids as revoked; return the ids that were found."""
        found = []
        for queue in (self.backlog, self._returned):
            for index, item in enumerate(list(queue)):
                if item.delivery.id in ids and not item.verdict:
                    queue[index] = item._replace(verdict="revoked", text="revoked")
                    found.append(item.delivery.id)
        return found

    def held_back(self) -> list[tuple[Admitted, float]]:
        """Return the deliveries that wait here for their turn under a rate limit, and when that is."""
        return [(item, self._rates.due(item.delivery.id)) for item in list(self._parked)]

    def nothing_waits(self) -> bool:
        """Tell whether more messages are wanted, and none that is here waits for an executor."""
        return self.leasing and not (self.backlog or self._returned or self._unadmitted or self._parked)

    @property
    def takes_all(self) -> bool:
        """Whether a message that is ready would be leased at once, as far as this worker is concerned."""
        return (
            self.leasing and not self._left and self.settler.pending <= _MAX_UNSETTLED and self.crew.capacity()[0] > 0
        )

    def set_rate(self, task: str, value: str | float | None) -> None:
        """Change the rate limit of a task."""
        self.lets_go_on = None
        self.crew.hold()
        self._rates.set(task, value)

    # --- the loop --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Lease and dispatch until told to stop; a broker that fails is tried again."""
        pause = _PAUSE_FIRST
        while not self.stopping.is_set():
            try:
                if pause > _PAUSE_FIRST:
                    self.rebuild()
                self._turn()
                if pause > _PAUSE_FIRST:
                    self.troubles.over()
                    pause = _PAUSE_FIRST
            except OperationalError as exc:
                self.troubles.tell("The broker cannot be used now, trying again", exc)
                # Not all workers come back in the same moment.
                self.stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _PAUSE_LAST)
        with contextlib.suppress(OperationalError):
            self._lease_no_more()

    def _turn(self) -> None:
        self._unpark()
        self._admit_new()
        if self._returned:
            self.backlog.extendleft(reversed([self._returned.popleft() for _ in range(len(self._returned))]))
        if self.backlog:
            self._dispatch()
        if self.backlog and self.crew.is_blocked():
            self._let_others()
        wanted = self._wanted()
        if wanted <= 0:
            self._lease_no_more()
            self._admit_new()
            self._wait_for_room()
            return
        now = self.clock.now()
        lease = self.lease._replace(limit=wanted, again=True)
        longest = _IDLE_WAIT
        if self._left:
            self._left = {task: until for task, until in self._left.items() if until > now}
            lease = lease._replace(without=tuple(self._left))
            longest = min([longest, *(until - now for until in self._left.values())])
        wait = 0.0 if self.backlog else min(longest, self._rates.next_wait(self._parked))
        self._expected = True
        deliveries = self.broker.lease(lease, now, wait)
        self._expected = 0 < len(deliveries) < wanted
        if deliveries:
            self.leased_at = self.clock.monotonic()
            self._unadmitted.extend(deliveries)
            self._admit_new()
        elif self.backlog:
            self._wait_for_room()

    def _lease_no_more(self) -> None:
        """Tell the broker, if it may keep something for the next call, that nothing is wanted for a while."""
        if self._expected:
            self._unadmitted.extend(self.broker.lease(self.lease._replace(limit=0), self.clock.now()))
            self._expected = False

    def _let_others(self) -> None:
        """Give what cannot start here for a while back to the broker: another worker may be free."""
        items = list(self.backlog)
        self.backlog.clear()
        self.backlog.extend(item for item in items if item.verdict)
        self.settler.put([_release(item.delivery) for item in items if not item.verdict])

    def _wait_for_room(self) -> None:
        with self._changed:
            if not self._rung:
                self._changed.wait(min(1.0, self._rates.next_wait(self._parked)))
            self._rung = False

    def _wanted(self) -> int:
        """How many messages to ask for: what can start now, and while tasks are short some more to keep busy."""
        if not self.leasing or self.settler.pending > _MAX_UNSETTLED:
            return 0
        free, more = self.crew.capacity()
        wanted = min(max(free, more) - len(self.backlog), _MAX_LEASE)
        return wanted if free or wanted >= self.crew.least_lease() else 0

    # --- admission -------------------------------------------------------------------------------------------

    def _admit_new(self) -> None:
        while self._unadmitted:
            batch = list(self._unadmitted)
            self._admit(batch, self.backlog)
            for _ in batch:
                self._unadmitted.popleft()

    def _admit(self, deliveries: Sequence[Delivery], into: deque[Admitted]) -> None:
        now = self.clock.now()
        revoked = set() if self.starting_looks else revoked_among(self.store, deliveries)
        ended = ended_before(self.store, deliveries, now)
        self._doubts |= any(map(is_doubtful, deliveries))
        tasks = self.app.tasks
        if ended:
            # The worker that ran them was killed, or cut off, before the broker took in that they had ended.
            into.extend(Admitted(d, "ended") for d in deliveries if d.id in ended and d.task in tasks)
            deliveries = [d for d in deliveries if d.id not in ended or d.task not in tasks]
        # Of most tasks nothing has to be looked at but when they expire.
        free = {task for task in {d.task for d in deliveries} if task in tasks and not self._rates.limits(task)}
        for delivery in deliveries:
            if self.received is not None:
                self.received(delivery)
            if delivery.task in free and not delivery.expires and delivery.id not in revoked:
                into.append(Admitted(delivery))
                continue
            if delivery.task not in tasks:
                self._offer(delivery, now, into)
                continue
            verdict, text = admission.verdict_of(delivery, now, revoked)
            if not verdict and not self._rates.may_run(delivery, now):
                self._park(delivery, now)
                continue
            into.append(Admitted(delivery, verdict, text))

    def _offer(self, delivery: Delivery, now: float, into: deque[Admitted]) -> None:
        """Deal with a task that this worker does not know: others may, so it goes back before it is given up."""
        settlement = admission.offer(delivery, now, self.options.unknown_task_wait)
        if settlement is not None:
            self.settler.put([settlement])
            # When it is due, whoever knows it gets a head start.
            self._left[delivery.task] = max(self._left.get(delivery.task, 0.0), settlement.due + _HEAD_START)
        else:
            into.append(Admitted(delivery, "unknown", f"no worker knows the task {delivery.task!r}"))
        known = (delivery.queue, delivery.task)
        if known not in self._strangers and len(self._strangers) < 1000:
            self._strangers.add(known)
            logger.warning(
                "Task %r on queue %r is not one of this worker's. It is offered to other workers for %.0f s and then "
                "kept among the dead letters. If another app shares this broker, give each app a queue of its own "
                "(task_default_queue, or task_routes) and start its workers with -Q; if the task is this app's, "
                "import its module (include=..., imports, autodiscover_tasks).",
                delivery.task,
                delivery.queue,
                self.options.unknown_task_wait,
            )

    def _park(self, delivery: Delivery, now: float) -> None:
        """Hold a rate-limited delivery back here when its turn is near, else in the broker."""
        due = self._rates.reserve(delivery, now)
        if due - now <= 1.0:
            self._parked.append(Admitted(delivery))
        else:
            self.settler.put([Settlement(delivery.tag, delivery.token, End.REQUEUE, due=due)])

    def _unpark(self) -> None:
        if self._parked:
            now = self.clock.now()
            ready = [item for item in self._parked if self._rates.due(item.delivery.id) <= now]
            for item in ready:
                self._parked.remove(item)
                self.backlog.append(item)

    # --- dispatch --------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        if self._doubts:
            self._drop_copies()
        self.assigner.begin()
        plan = self.crew.plan(self.backlog, self.assigner.assigned)
        if not plan:
            return
        tickets = [
            (a.delivery.tag, a.delivery.token, packed(a.number, member.index, a.early))
            for member, batch in plan
            for a in batch
            # A conclusion is no run: its message keeps the ticket that tells of the run it concludes.
            if not a.concluding
        ]
        try:
            failpoint("dispatch.before")
            gone = set(self.broker.start(self.lease.owner, tickets, self.clock.now())) if tickets else set()
            if self.starting_looks or self._doubts:
                gone |= self._stopped(plan, gone)
        except OperationalError:
            self._take_back(plan)
            raise
        for member, batch in plan:
            jobs = [job_of(a) for a in batch if not gone or a.delivery.tag not in gone]
            if gone:
                self.crew.forget(member, [a.number for a in batch if a.delivery.tag in gone])
            if self.lets_go_on is not None and len(batch) == len(jobs) == 1:
                self.lets_go_on(member, batch[0], jobs[0])
            self.send(member, jobs)
        failpoint("dispatch.after")

    def _stopped(self, plan: list[tuple[Member, list[Assigned]]], gone: set[Any]) -> set[Any]:
        """Return the tags of what has been started and must not run; it goes back into the backlog, to be concluded."""
        starting = [a.delivery for _, batch in plan for a in batch if not a.concluding and a.delivery.tag not in gone]
        items = ended_meanwhile(self.store, starting, self.clock.now())
        items += revoked_meanwhile(self.store, starting) if self.starting_looks else []
        self.backlog.extendleft(reversed(items))
        return {item.delivery.tag for item in items}

    def _drop_copies(self) -> None:
        self._doubts, dropped = sort_out(self.backlog, self.crew, self.store, self.clock.now())
        self.settler.put([Settlement(delivery.tag, delivery.token) for delivery in dropped])

    def _take_back(self, plan: list[tuple[Member, list[Assigned]]]) -> None:
        """Undo a plan that could not be written down."""
        for member, batch in plan:
            self.crew.forget(member, [a.number for a in batch])
            self.backlog.extendleft(again(a) for a in reversed(batch))

    def send(self, member: Member, jobs: list[Job]) -> None:
        """Give an executor jobs that are written down; one that takes none is condemned."""
        if not jobs:
            return
        try:
            member.send(jobs)
        except OSError as exc:
            # What it did not get is given back when the supervisor says that the process has ended.
            logger.warning("Executor %d (pid %d) takes no more work: %s", member.index, member.pid, exc)
            self.crew.condemn(member, "it took no more work from its socket")


def _release(delivery: Delivery) -> Settlement:
    return Settlement(delivery.tag, delivery.token, End.RELEASE)
