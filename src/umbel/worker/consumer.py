"""The process between broker and executors: it leases, dispatches, watches over what runs, and settles.

Its main thread waits on the sockets of the executors and of the supervisor; leasing, settling, the heartbeat and
remote control each have a thread of their own. It runs no task and forks nothing.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from umbel.app.execution import Report
from umbel.app.traits import traits_of
from umbel.core.errors import OperationalError, WorkerLostError
from umbel.core.message import End, Settlement
from umbel.core.outcome import Policy
from umbel.engine.clock import Clock
from umbel.worker import admission
from umbel.worker.admission import Admitted
from umbel.worker.assigning import again, settlement_of
from umbel.worker.bodies import Places
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.endings import plain_ending
from umbel.worker.executor import Up
from umbel.worker.feeder import Feeder
from umbel.worker.frames import room_for_frames
from umbel.worker.going_on import GoingOn
from umbel.worker.heartbeat import Heartbeat
from umbel.worker.link import Link, Note
from umbel.worker.options import WorkerOptions
from umbel.worker.overseer import Overseer
from umbel.worker.pools import LocalCrew
from umbel.worker.progress import Progress
from umbel.worker.service import Service
from umbel.worker.settler import Settler
from umbel.worker.tally import Tally

logger = logging.getLogger("umbel.worker")

#: With more jobs in flight than this, reports are let gather for so many seconds.
_CROWD, _GATHER = 32, 0.001
_TICK = 0.02
_IDLE_TICK = 0.5
#: An executor that takes part of a frame for longer than this is stuck.
_SEND_TIMEOUT = 5.0


@dataclass
class Consumer:
    """One session's main loop. `run` returns the exit status."""

    app: Any
    options: WorkerOptions
    link: Link
    progress: Progress
    crew: Crew
    feeder: Feeder
    settler: Settler
    heartbeat: Heartbeat
    clock: Clock
    totals: dict[str, int] = field(default_factory=dict)
    #: Follows executors that go on by themselves.
    going_on: GoingOn | None = None
    remote: Service | None = None
    watchdog: Service | None = None
    #: Starts executor threads, for the pools that run tasks in this process.
    local: LocalCrew | None = None
    #: Called when the worker has ended as it should: removes what is this worker's alone.
    left: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.link, selectors.EVENT_READ, None)
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._selector.register(self._read, selectors.EVENT_READ, "wake")
        self._stopping = False
        self._cold = False
        self._deadline: float | None = None
        self._status: int | None = None
        self._fatal: deque[tuple[str, BaseException]] = deque()
        self.started = time.monotonic()
        self.overseer = Overseer(
            self.crew, self.feeder, self.options, self.local, self.kill, self.join, self._unregister, self.fail
        )

    # --- called by other threads -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the main loop look around."""
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def fail(self, name: str, exc: BaseException) -> None:
        """A service ended with an error: the session is over."""
        self._fatal.append((name, exc))
        self.wake()

    def lease_lost(self) -> None:
        """Every lease of this session has passed to others: what runs here must not go on."""
        logger.error(
            "The leases of this worker lapsed (it was frozen, or could not reach the broker for %.0f s) and its "
            "messages went to others; starting afresh",
            self.options.lease,
        )
        self._fatal.append(("heartbeat", WorkerLostError("lease lost")))
        self.wake()

    def kill(self, member: Member, signum: int) -> None:
        """Have the supervisor send a signal to an executor's process group."""
        self.link.send(Note("kill", slot=member.index, pid=member.pid, signal=signum))

    def catch_up(self) -> None:
        """Wait until what executors have said is known here."""
        if self.going_on is not None:
            self.going_on.catch_up(self.wake)

    def ask_for_shutdown(self) -> None:
        """Have the supervisor stop this worker warm (control command `shutdown`)."""
        self.link.send(Note("shutdown"))

    # --- the loop --------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the supervisor says stop or goes away."""
        for service in self._services():
            service.failed = self.fail
            service.start()
        for slot, pid, sock in self.local.start() if self.local is not None else ():
            self.join(slot, pid, sock)
        self.link.send(Note("ready"))
        while self._status is None:
            pause = self._rest()
            for key, _events in self._selector.select(pause):
                self._on_event(key.fileobj, key.data)
            self._tick()
        return self._finish(self._status)

    def _services(self) -> list[Service]:
        services = (self.settler, self.heartbeat, self.feeder, self.remote, self.watchdog)
        return [service for service in services if service is not None]

    def _rest(self) -> float:
        """Take in what executors have reported; return how long to wait for more (0: look around at once)."""
        rings = None if self.local is not None else self.progress.rings
        if rings is None:
            if self.crew.busy() > _CROWD:
                time.sleep(_GATHER)
            return self._pause()
        rings.rouse()
        if self._take_reports():
            if self.crew.busy() > _CROWD:
                # More will come by themselves; read in company they cost a fraction.
                time.sleep(_GATHER)
            return 0.0
        rings.doze()
        return 0.0 if self._take_reports() else self._pause()

    def _take_reports(self) -> bool:
        """Deal with what the rings hold; False when that is nothing."""
        found = False
        for member in list(self.crew.members.values()):
            reports = member.ring.take() if member.ring is not None else None
            if reports:
                found = True
                self._on_reports(member, reports)
        return found

    def _pause(self) -> float:
        return _TICK if self._stopping or self.crew.busy() else _IDLE_TICK

    def _on_event(self, source: Any, data: Any) -> None:
        if data == "wake":
            with suppress(BlockingIOError):
                os.read(self._read, 4096)
            if self.going_on is not None:
                self.going_on.caught_up(self._take_reports)
        elif isinstance(data, Member):
            self._on_member(data)
        elif source is self.link:
            notes = self.link.receive()
            if notes is None:
                # The supervisor is gone, and with it everything that could run a task.
                self._status = 1
                return
            for note in notes:
                self._on_note(note)

    def _on_note(self, note: Note) -> None:
        if note.what == "executor":
            self.join(note.slot, note.pid, socket.socket(fileno=self.link.take_fd()))
        elif note.what == "exited":
            self._on_exit(note)
        elif note.what == "stop":
            self._stop(note.seconds)
        elif note.what == "cold":
            self._stop(0.0)

    def _tick(self) -> None:
        if self._fatal:
            self._status = 2
            return
        now = time.monotonic()
        self.overseer.look(now)
        if self._stopping:
            self._leave(now)

    # --- executors -------------------------------------------------------------------------------------------

    def join(self, slot: int, pid: int, sock: socket.socket) -> None:
        """Take an executor into the crew."""
        sock.settimeout(_SEND_TIMEOUT)
        rings = None if self.local is not None else self.progress.rings
        ring = None if rings is None else rings.reader(slot, Report)
        places = None if rings is None or self.progress.bodies is None else Places(self.progress.bodies.part(slot))
        member = Member(slot, pid, sock, self.progress.slot(slot), ring, room=room_for_frames(sock), places=places)
        self.crew.join(member)
        self._selector.register(sock, selectors.EVENT_READ, member)

    def _on_member(self, member: Member) -> None:
        frames = member.reader.read(member.sock, socket.MSG_DONTWAIT)
        if frames is None:
            # Its end is closed; what it had is dealt with when the supervisor says how the process ended.
            self._unregister(member)
            return
        # First what it was woken for: outcomes are waited for.
        self._take_reports()
        self._on_frames(member, frames)

    def _on_frames(self, member: Member, frames: list[Up]) -> None:
        reports: list[Report] = []
        recalled: list[int] = []
        for frame in frames:
            if self.going_on is not None:
                self.going_on.not_held(member, frame)
            reports += frame.reports
            recalled += frame.recalled
            if frame.ready:
                member.ready = True
            if frame.leaving:
                member.leaving = True
                logger.info("Executor %d (pid %d) is replaced after %s", member.index, member.pid, frame.leaving)
        if reports:
            self._on_reports(member, reports)
        if recalled:
            returned = self.crew.take_back(member, recalled)
            self.feeder.give_back([again(assigned) for assigned in returned if assigned is not None])
        if recalled or any(frame.ready or frame.queued for frame in frames):
            self.feeder.room()

    def _on_reports(self, member: Member, reports: list[Report]) -> None:
        tally = Tally(self.totals, self.crew.runtimes)
        if self.going_on is not None:
            reports = self.going_on.follow(member, reports, tally)
        back = self.crew.take_back(member, [report.number for report in reports])
        settlements = []
        for assigned, report in zip(back, reports, strict=True):
            if assigned is not None:
                tally.add(assigned, report)
                settlements.append(settlement_of(assigned.delivery, report))
        tally.enter()
        if not settlements:
            return
        if self.crew.busy() or self._stopping:
            self.settler.put(settlements)
        else:
            self.settler.settle(settlements)
        if member.wants_more():
            self.feeder.room()

    def _unregister(self, member: Member) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(member.sock)

    def _on_exit(self, note: Note) -> None:
        """An executor has ended: settle what it finished, put back what it had not begun, judge what it ran."""
        member = self.crew.members.get(note.slot)
        if member is None or member.pid != note.pid:
            return
        if member.ring is not None and (reports := member.ring.take()):
            self._on_reports(member, reports)
        self._on_frames(member, member.reader.drain(member.sock))
        self._unregister(member)
        started = member.slot.started()
        left = self.crew.leave(member)
        member.sock.close()
        back: list[Admitted] = []
        for assigned in left:
            if assigned.number <= started:
                self._judge(assigned, note.text, back)
            elif self.going_on is None or not self.going_on.ask(member, assigned):
                back.append(again(assigned))
        self.feeder.give_back(back)

    def _judge(self, assigned: Assigned, how: str, back: list[Admitted]) -> None:
        delivery = assigned.delivery
        if not self._cold and self.crew.looks_up_again(assigned):
            back.append(again(assigned))
            return
        if assigned.concluding or self._cold:
            self.settler.put([self._plain_end(assigned, how)])
            return
        if assigned.verdict:
            back.append(Admitted(delivery, assigned.verdict, assigned.verdict_text))
            return
        task = self.app.tasks.get(delivery.task)
        policy = traits_of(task).keeping if task is not None else Policy()
        text = f"Worker exited prematurely: {how} while running {delivery.task}[{delivery.id}]"
        logger.error("%s", text)
        verdict = admission.lost(delivery, policy, early=assigned.early, text=text)
        if isinstance(verdict, Settlement):
            self.settler.put([verdict])
        else:
            back.append(verdict)

    def _plain_end(self, assigned: Assigned, how: str) -> Settlement:
        """End a task whose handlers killed their process, or that a cold shutdown cut off."""
        delivery = assigned.delivery
        if self._cold and not assigned.early and not assigned.concluding:
            return Settlement(delivery.tag, delivery.token, End.RELEASE)
        verdict = assigned.concluding or assigned.verdict or "lost"
        text = assigned.verdict_text or f"Worker exited prematurely: {how}"
        return plain_ending(self.app, delivery, verdict, text, now=self.clock.now(), dead=bool(assigned.concluding))

    # --- leaving ---------------------------------------------------------------------------------------------

    def _stop(self, grace: float) -> None:
        """Begin (or sharpen) the shutdown: lease no more, hand back what has not started, finish what runs."""
        self._stopping = True
        self.feeder.leasing = False
        self.heartbeat.recovering = False
        self._deadline = None if grace < 0 else time.monotonic() + grace
        self.feeder.stop()
        self.overseer.recall()

    def _leave(self, now: float) -> None:
        settled = self.settler.pending == 0
        if self.feeder.join(0):
            self.settler.put(
                [
                    plain_ending(self.app, item.delivery, item.verdict, item.text, now=self.clock.now())
                    for item in self.feeder.release_all()
                ]
            )
        if self._deadline is not None and now >= self._deadline and not self._cold:
            self._cut_off()
        if settled and self.crew.busy() == 0 and self.feeder.join(0) and self.settler.pending == 0:
            self._status = 0

    def _cut_off(self) -> None:
        """The grace is over: kill what runs. Late-acknowledged tasks go back, no attempt used; early ones failed."""
        self._cold = True
        for member in list(self.crew.members.values()):
            if member.assigned:
                logger.warning(
                    "Executor %d (pid %d) is killed with its task: the time for shutting down is over",
                    member.index,
                    member.pid,
                )
                if self.local is None:
                    self.kill(member, signal.SIGKILL)
                else:
                    self._abandon(member)

    def _abandon(self, member: Member) -> None:
        """End what a thread runs as a kill would have ended it; the thread itself ends with this process."""
        started = member.slot.started()
        self._unregister(member)
        for assigned in self.crew.leave(member):
            if assigned.number <= started:
                self.settler.put([self._plain_end(assigned, "cold shutdown")])
            else:
                self.settler.put([Settlement(assigned.delivery.tag, assigned.delivery.token, End.RELEASE)])
        member.sock.close()

    def _finish(self, status: int) -> int:
        for service in self._services():
            if service is not self.settler:
                service.stop()
        self.feeder.join(5.0)
        self.settler.stop()
        self.settler.join(5.0)
        self.heartbeat.join(1.0)
        if not status:
            with suppress(OperationalError):
                self.left()
        for member in list(self.crew.members.values()):
            member.sock.close()
        self._selector.close()
        return status
