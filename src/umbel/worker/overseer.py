"""Looks after what runs: hard time limits, executors that do not get ready, tasks that hold others back."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umbel.core.errors import WorkerLostError
from umbel.worker.admission import Admitted
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.feeder import Feeder
from umbel.worker.inspection import runs
from umbel.worker.options import WorkerOptions
from umbel.worker.pools import LocalCrew

logger = logging.getLogger("umbel.worker")

#: A running task holds back what waits behind it no longer than this (seconds).
_RECALL_AFTER = 0.03
#: How long after its hard limit a thread that does not stop is given up (seconds).
_ABANDON_AFTER = 5.0
#: An executor may take this many times worker_proc_alive_timeout to get ready; then it is replaced.
_PATIENCE = 5


@dataclass
class Overseer:
    """Called by the consumer's main loop every few milliseconds while something runs."""

    crew: Crew
    feeder: Feeder
    options: WorkerOptions
    #: None where executors are processes.
    local: LocalCrew | None
    kill: Callable[[Member, int], None]
    join: Callable[..., None]
    unregister: Callable[[Member], None]
    fail: Callable[[str, BaseException], None]

    def look(self, now: float) -> None:
        """Look at every executor; `now` is monotonic."""
        for member in list(self.crew.members.values()):
            self._watch(member, now)
        while self.crew.condemned:
            member, reason = self.crew.condemned.popleft()
            logger.error("Executor %d (pid %d) is killed: %s", member.index, member.pid, reason)
            self.kill(member, signal.SIGKILL)

    def recall(self) -> None:
        """Ask every executor for what has not started, so that it can be looked at again."""
        self.crew.hold()
        for member in list(self.crew.members.values()):
            if len(member.assigned) > 1 and self.local is None:
                self.kill(member, signal.SIGURG)

    def terminate(self, ids: set[str], signum: int) -> list[str]:
        """Kill the executors that run these tasks, or are about to; the tasks end as REVOKED. Return their ids."""
        found = []
        for member in list(self.crew.members.values()):
            for assigned in list(member.assigned.values()):
                if assigned.delivery.id not in ids or assigned.concluding:
                    continue
                found.append(assigned.delivery.id)
                # Everybody can see that it has started before its executor has begun it.
                assigned.doomed = signum
                if runs(assigned, member.slot.running()):
                    self._end(member, assigned)
        return found

    def _end(self, member: Member, assigned: Assigned) -> None:
        signum, assigned.doomed = assigned.doomed, 0
        if not signum:
            return
        assigned.verdict, assigned.verdict_text = "terminated", signal.Signals(signum).name
        self.kill(member, signal.SIGKILL if signum == signal.SIGTERM else signum)

    def _watch(self, member: Member, now: float) -> None:
        if not member.ready:
            self._watch_start(member, now)
            return
        current = member.slot.running()
        assigned = member.assigned.get(current[0]) if current is not None else None
        if current is None or assigned is None:
            return
        lasted = now - current[1]
        if assigned.doomed:
            self._end(member, assigned)
        elif assigned.hard and lasted > assigned.hard:
            self._over_time(member, assigned, lasted - assigned.hard)
        elif self.local is None and lasted > _RECALL_AFTER:
            member.blocked_by = assigned.number
            if len(member.assigned) > 1:
                self._free_hostages(member, assigned, lasted, now)

    def _watch_start(self, member: Member, now: float) -> None:
        """An executor that does not get ready (a handler of worker_process_init hangs) is replaced."""
        waited = now - member.forked
        if waited > _PATIENCE * self.options.proc_alive_timeout and not member.leaving:
            self.crew.condemn(member, f"it was not ready {waited:.0f} s after its start; look at worker_process_init")

    def _free_hostages(self, member: Member, assigned: Assigned, lasted: float, now: float) -> None:
        """A task takes longer than its kind used to: what waits behind it goes to other executors."""
        if now - member.recalled_at > _RECALL_AFTER:
            member.recalled_at = now
            self.crew.runtimes.learn(assigned.delivery.task, lasted)
            self.kill(member, signal.SIGURG)

    def _over_time(self, member: Member, assigned: Assigned, over: float) -> None:
        """A task has passed its hard limit by `over` seconds: kill its process, or give up its thread."""
        if self.local is not None:
            # The thread raises TimeLimitExceeded by itself; only one that cannot be interrupted comes here.
            if over > _ABANDON_AFTER:
                self._abandon(member, self.local)
            return
        if not assigned.verdict:
            assigned.verdict, assigned.verdict_text = "timeout", str(assigned.hard)
            delivery: Any = assigned.delivery
            logger.error("Hard time limit (%gs) exceeded for %s[%s]", assigned.hard, delivery.task, delivery.id)
            self.kill(member, signal.SIGKILL)

    def _abandon(self, member: Member, local: LocalCrew) -> None:
        """Leave a thread that cannot be stopped to itself, count its task as timed out, and replace it."""
        self.unregister(member)
        left = self.crew.leave(member)
        member.sock.close()
        self.feeder.give_back([Admitted(a.delivery, "timeout", str(a.hard)) for a in left])
        logger.error(
            "Thread %d is still running %s past its hard time limit and cannot be stopped: it is given up and "
            "replaced. Use the prefork pool for tasks that may hang outside Python.",
            member.index,
            ", ".join(a.delivery.task for a in left),
        )
        replacement = local.replace()
        if replacement is None:
            self.fail("pool", WorkerLostError("too many threads had to be given up"))
        else:
            self.join(*replacement)
