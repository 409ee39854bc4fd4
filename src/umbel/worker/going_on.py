"""An idle worker goes on with what follows from a task by itself: the follow-up is leased in the step that settles.

A chain would otherwise travel through the queue at every step. Whatever else waits keeps its turn: the follow-up goes
into its queue where that is not empty, where messages wait here, and after every `MOST` steps in a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from umbel.core.message import Delivery, End, Message, Settlement
from umbel.worker.admission import Admitted
from umbel.worker.assigning import job_of
from umbel.worker.crew import Assigned, Crew, Member
from umbel.worker.feeder import Feeder
from umbel.worker.tickets import packed

#: Follow-ups in a row for which an executor is kept before others have a turn.
MOST = 50
#: Larger messages (bytes of head and body) take the ordinary way, which is made for them.
_LARGEST = 16 * 1024


class GoingOn:
    """Keeps an executor for the follow-up of what it has just done, and gives it to it once that is stored."""

    def __init__(self, crew: Crew, feeder: Feeder, queues: tuple[str, ...]) -> None:
        self._crew = crew
        self._feeder = feeder
        self._queues = frozenset(queues)
        self._lock = threading.Lock()
        #: Ticket → executor that is kept, and what it is to be given.
        self._kept: dict[int, tuple[Member, Assigned]] = {}
        #: How many in a row, by executor.
        self._rows: dict[int, int] = {}

    def ask(self, member: Member, settlement: Settlement) -> None:
        """Put a ticket on a settlement if this worker, idle otherwise, can go on with its follow-up."""
        message = self._follow_up(settlement)
        row = self._rows.pop(member.index, 0)
        if message is None or row >= MOST:
            return
        assigner = self._feeder.would_take(message.task)
        if assigner is None:
            return
        assigned = assigner.assigned(Admitted(_delivery(message)))
        if not self._crew.block(member, assigned.number):
            return
        settlement.ticket = packed(assigned.number, member.index, assigned.early)
        self._rows[member.index] = row + 1
        with self._lock:
            self._kept[settlement.ticket] = (member, assigned)

    def _follow_up(self, settlement: Settlement) -> Message | None:
        if settlement.end is not End.DONE or len(settlement.publish) != 1:
            return None
        (message,) = settlement.publish
        if message.exchange or message.due or message.expires or message.queue not in self._queues:
            return None
        return message if len(message.head) + len(message.body) <= _LARGEST else None

    def settled(self, settlement: Settlement) -> None:
        """The settlement is stored: start its follow-up if it is held now, else let go of the executor."""
        with self._lock:
            kept = self._kept.pop(settlement.ticket, None)
        if kept is None:
            return
        member, assigned = kept
        delivery = settlement.taken
        if delivery is None:
            self._crew.unblock(member, assigned.number)
            self._feeder.room()
            return
        assigned.delivery = delivery
        if not self._crew.start_blocked(member, assigned):
            self._feeder.give_back([Admitted(delivery)])
            return
        if self._feeder.received is not None:
            self._feeder.received(delivery)
        self._feeder.send(member, [job_of(assigned)])


def _delivery(message: Message) -> Delivery:
    return Delivery(
        message.id,
        message.task,
        message.queue,
        message.head,
        message.body,
        message.exchange,
        message.priority,
        generation=message.generation,
    )


#: What a settler calls with each settlement that had a ticket, once it is stored.
Settled = Callable[[Settlement], None]
