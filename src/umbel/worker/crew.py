"""The executors as their consumer sees them: what each has been given, how much more it may get."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from umbel.app.execution import Job, Report
from umbel.core.message import Delivery, Settlement
from umbel.worker.admission import Admitted
from umbel.worker.bodies import LARGE, Places
from umbel.worker.executor import Down, Up
from umbel.worker.frames import FrameReader, pack
from umbel.worker.progress import Slot
from umbel.worker.ring import RingReader

#: Work that may wait in an executor behind the running task, in seconds of expected run time.
HORIZON = 0.010
#: How many jobs and bytes may wait there at most; bytes: where the system gives its socket no larger buffer.
MAX_WAITING = 200
MAX_WAITING_BYTES = 144 * 1024
#: From how many bytes on jobs make a frame of their own.
_FRAME_BYTES = 64 * 1024
#: What a task of unknown length is taken to last: longer than the horizon, so that nothing waits behind it.
UNKNOWN_RUNTIME = 1.0

#: While executors are busy, no fewer messages than this are asked for where short tasks allow it.
_LUMP = 200
#: What is added to a run's length for the work around it (seconds).
_OVERHEAD = 2e-5
#: How many executors may die while they look up what follows from one task.
_TRIES = 5


class Assigned(msgspec.Struct, gc=False):
    """A delivery that an executor has, and what is to be said about it if it does not come back."""

    delivery: Delivery
    number: int
    cost: float
    #: Hard time limit in seconds, None for none.
    hard: float | None = None
    is_async: bool = False
    #: Acknowledged early: once started it must not run again.
    early: bool = True
    #: Why the consumer had its process killed ("" = it did not).
    verdict: str = ""
    verdict_text: str = ""
    #: The verdict this job carries already (a conclusion, not a run).
    concluding: str = ""
    #: The signal that is to end it as soon as it begins: it was terminated before (0 = it was not).
    doomed: int = 0
    #: The outcome that it follows from, where its executor went on with it by itself.
    follows: Settlement | None = None
    #: How many bytes of it go through the executor's socket.
    size: int = 0
    #: Where its body lies in the memory that the executor shares (-1: it goes with the job).
    place: int = -1


@dataclass(slots=True)
class Member:
    """One executor process."""

    index: int
    pid: int
    sock: socket.socket
    slot: Slot
    #: Where its reports come in, beside the socket; None: all come through the socket.
    ring: RingReader[Report] | None = None
    #: Where large bodies are put for it; None: they go through the socket.
    places: Places | None = None
    reader: FrameReader[Up] = field(default_factory=lambda: FrameReader(Up))
    assigned: dict[int, Assigned] = field(default_factory=dict)
    #: Expected seconds of work assigned and not reported, asynchronous tasks left out.
    load: float = 0.0
    waiting_bytes: int = 0
    #: How many bytes of jobs may be on their way to it.
    room: int = MAX_WAITING_BYTES
    async_jobs: int = 0
    ready: bool = False
    leaving: bool = False
    recalled_at: float = 0.0
    #: Number of a job that turned out to take long: until it is done nothing is put behind it (0: none).
    blocked_by: int = 0
    #: Monotonic time of the fork, to notice one that never gets ready.
    forked: float = field(default_factory=time.monotonic)

    def may_take(self, assigned: Assigned, size: int, most: int, async_limit: int) -> bool:
        """Tell whether one more job of this size (bytes) fits: at most `most` of plain tasks, or `async_limit`."""
        if not self.ready or self.leaving or self.blocked_by:
            return False
        if assigned.is_async:
            return self.async_jobs < async_limit
        held = len(self.assigned) - self.async_jobs
        if held == 0:
            return True
        return held < most and self.load + assigned.cost <= HORIZON and self._has_room(assigned.delivery, size)

    def _has_room(self, delivery: Delivery, size: int) -> bool:
        if self.places is not None and len(delivery.body) >= LARGE:
            return self.places.find(len(delivery.body)) >= 0
        return self.waiting_bytes + size <= self.room

    def put_apart(self, assigned: Assigned, size: int) -> int:
        """Find a place for a large body; return how many bytes of the job are left for the socket."""
        body = len(assigned.delivery.body)
        if self.places is None or body < LARGE or assigned.is_async:
            return size
        assigned.place = self.places.lend(body)
        return size if assigned.place < 0 else size - body

    def wants_more(self) -> bool:
        """Tell whether it is worth planning again: half of what may wait here has been done."""
        return (self.load <= HORIZON / 2 and len(self.assigned) - self.async_jobs <= MAX_WAITING // 2) or bool(
            self.async_jobs
        )

    def assign(self, assigned: Assigned, size: int) -> None:
        """Count a job as given to this executor."""
        if self.assigned:
            # Others wait: it is not to go on by itself.
            self.slot.allow(0)
        self.assigned[assigned.number] = assigned
        if assigned.is_async:
            self.async_jobs += 1
        else:
            self.load += assigned.cost
            assigned.size = size
            self.waiting_bytes += size

    def release(self, number: int) -> Assigned | None:
        """Count a job as come back; None when it is not here (a repeated report)."""
        assigned = self.assigned.pop(number, None)
        if assigned is None:
            return None
        if number == self.blocked_by:
            self.blocked_by = 0
        if assigned.is_async:
            self.async_jobs -= 1
        elif len(self.assigned) == self.async_jobs:
            self.load, self.waiting_bytes = 0.0, 0
        else:
            self.load -= assigned.cost
            self.waiting_bytes -= assigned.size
        if assigned.place >= 0 and self.places is not None:
            self.places.take_back(assigned.place)
            assigned.place = -1
        return assigned

    def send(self, jobs: list[Job]) -> None:
        """Send jobs; raises OSError when the process is gone or does not read."""
        for job in jobs:
            if job.size and self.places is not None:
                self.places.fill(job.place, job.body)
                job.body = b""
        for part in _parts(jobs) if self.waiting_bytes > MAX_WAITING_BYTES else (jobs,):
            self.sock.sendall(pack(Down(jobs=part)))

    def retire(self) -> None:
        """Ask the executor to finish what it has and exit."""
        self.leaving = True
        self.slot.allow(0)
        self.sock.sendall(pack(Down(retire=True)))


def _parts(jobs: list[Job]) -> Iterator[list[Job]]:
    """Cut jobs into frames: an executor begins with the first large ones while the others come."""
    part: list[Job] = []
    size = 0
    for job in jobs:
        part.append(job)
        size += len(job.body) + len(job.head)
        if size >= _FRAME_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


class Runtimes:
    """How long tasks of each name have lately taken, as a moving average in seconds."""

    def __init__(self) -> None:
        self._average: dict[str, float] = {}

    def expected(self, task: str) -> float:
        """Return the expected run time of `task`; a new one is taken to be long."""
        return self._average.get(task, UNKNOWN_RUNTIME)

    def learn(self, task: str, seconds: float, runs: int = 1) -> None:
        """Take in one run, or so many of this average length; longer ones count at once, shorter ones slowly."""
        old = self._average.get(task)
        if old is None or seconds > old:
            self._average[task] = seconds + _OVERHEAD
        else:
            self._average[task] = old + (1.0 - 0.8**runs) * (seconds + _OVERHEAD - old)

    def typical(self) -> float:
        """Return the expected run time of the shortest-running half of the work: what prefetching is sized by."""
        if not self._average:
            return UNKNOWN_RUNTIME
        return min(self._average.values())


class Crew:
    """All executors of a session; safe from the consumer's threads."""

    def __init__(self, *, async_limit: int, most: int | None = None) -> None:
        self.members: dict[int, Member] = {}
        self.runtimes = Runtimes()
        self._async_limit = async_limit
        #: How many jobs (the running one included) an executor may hold; by default as many as short tasks want.
        self._most = MAX_WAITING if most is None else min(most, MAX_WAITING)
        #: How many may be leased for each: as many again, so that an executor is refilled without a wait.
        self._ahead = 2 * MAX_WAITING if most is None else self._most
        self._lock = threading.Lock()
        #: Executors that must be killed, with the reason; the consumer's main loop sees to it.
        self.condemned: deque[tuple[Member, str]] = deque()
        #: How often executors died while they looked up what follows from tasks that had ended, by id.
        self._tried: Counter[str] = Counter()

    def join(self, member: Member) -> None:
        """Count a new executor in."""
        with self._lock:
            self.members[member.index] = member

    def leave(self, member: Member) -> list[Assigned]:
        """Count an executor out; return what it had, in the order it was given."""
        with self._lock:
            if self.members.get(member.index) is member:
                del self.members[member.index]
            left = list(member.assigned.values())
            member.assigned.clear()
            return left

    def looks_up_again(self, assigned: Assigned) -> bool:
        """Tell whether what follows from a task that had ended is looked up again, when an executor died at that.

        It calls no handler of the task, so that the task is not to blame; a few times all the same.
        """
        if assigned.concluding != "ended":
            return False
        self._tried[assigned.delivery.id] += 1
        return self._tried[assigned.delivery.id] < _TRIES

    def condemn(self, member: Member, reason: str) -> None:
        """Say that an executor has to be killed."""
        member.leaving = True
        self.condemned.append((member, reason))

    def capacity(self) -> tuple[int, int]:
        """Return how many jobs could start at once, and how many more would be run within the horizon."""
        depth = self._depth()
        free = more = 0
        with self._lock:
            for member in self.members.values():
                if not member.ready or member.leaving or member.blocked_by:
                    continue
                held = len(member.assigned)
                free += held == member.async_jobs and member.async_jobs < self._async_limit
                more += max(0, depth - held)
        return free, more

    def least_lease(self) -> int:
        """Return how few messages are not worth a question to the broker while every executor has work."""
        return min(_LUMP, self._depth() * len(self.members) // 4)

    def _depth(self) -> int:
        """How many messages may be leased for one executor."""
        typical = self.runtimes.typical()
        return min(self._ahead, 2 * int(HORIZON / typical)) if typical < HORIZON and self._most > 1 else 0

    def is_blocked(self) -> bool:
        """Tell whether every executor is held by a task that takes long."""
        with self._lock:
            return bool(self.members) and all(member.blocked_by for member in self.members.values())

    def plan(
        self, backlog: deque[Admitted], assigned_of: Callable[[Admitted], Assigned]
    ) -> list[tuple[Member, list[Assigned]]]:
        """Take from the front of `backlog` what executors can be given now, idle ones first."""
        batches: dict[int, tuple[Member, list[Assigned]]] = {}
        with self._lock:
            # Who still has half of what may wait there is left alone: a few jobs at a time cost more than they bring.
            members = [member for member in self.members.values() if member.wants_more()]
            members.sort(key=lambda m: (m.load, m.async_jobs))
            while backlog and members:
                assigned = assigned_of(backlog[0])
                delivery = assigned.delivery
                size = len(delivery.body) + len(delivery.head)
                # Round the crew once; who cannot take this job is out for this turn.
                while members:
                    member = members[0]
                    if member.may_take(assigned, size, self._most, self._async_limit):
                        break
                    members.pop(0)
                else:
                    break
                backlog.popleft()
                member.assign(assigned, member.put_apart(assigned, size))
                batches.setdefault(member.index, (member, []))[1].append(assigned)
                if len(members) > 1 and members[1].load < member.load:
                    members.append(members.pop(0))
        if backlog:
            self.hold()
        return list(batches.values())

    def advance(self, member: Member, number: int, following: Assigned) -> None:
        """Count a job as ended and the one that follows from it as given to the same executor."""
        with self._lock:
            member.release(number)
            member.assign(following, len(following.delivery.body) + len(following.delivery.head))

    def hold(self) -> None:
        """Have executors that go on by themselves stop doing so: somebody waits."""
        for member in list(self.members.values()):
            member.slot.allow(0)

    def forget(self, member: Member, numbers: Iterable[int]) -> None:
        """Drop jobs that were planned but not sent."""
        with self._lock:
            for number in numbers:
                member.release(number)

    def take_back(self, member: Member, numbers: Iterable[int]) -> list[Assigned | None]:
        """Count jobs as come back from `member`; None for those that it does not have."""
        with self._lock:
            return [member.release(number) for number in numbers]

    def busy(self) -> int:
        """How many jobs the executors have."""
        return sum(len(member.assigned) for member in list(self.members.values()))
