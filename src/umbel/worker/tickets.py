"""The number that marks a dispatched message: which executor, which job, and whether it may run twice."""

from __future__ import annotations

from typing import NamedTuple

from umbel.core.message import EARLY

_SLOT_BITS = 12


class Ticket(NamedTuple):
    """What `Broker.start` remembers about a dispatched message, packed into one integer."""

    number: int
    slot: int
    #: Acknowledged early: once started it must not run again.
    early: bool

    def pack(self) -> int:
        """Return the ticket as an integer above zero."""
        return packed(self.number, self.slot, self.early)


def lane_of(slot: int, pid: int) -> str:
    """Return the lane (`FollowUps.go_on`) of an executor; the next one in its slot has another."""
    return f"{slot}.{pid}"


def packed(number: int, slot: int, early: bool) -> int:
    """Return what `Ticket.pack` does, without the ticket."""
    return (number << _SLOT_BITS | slot) << 1 | (EARLY if early else 0)


def unpack(ticket: int) -> Ticket:
    """Read a ticket back."""
    early = bool(ticket & EARLY)
    rest = ticket >> 1
    return Ticket(rest >> _SLOT_BITS, rest & ((1 << _SLOT_BITS) - 1), early)
