"""The number that marks a dispatched message: which executor, which job, and whether it may run twice."""

from __future__ import annotations

from typing import NamedTuple

_SLOT_BITS = 12


class Ticket(NamedTuple):
    """What `Broker.start` remembers about a dispatched message, packed into one integer."""

    number: int
    slot: int
    #: Acknowledged early: once started it must not run again.
    early: bool

    def pack(self) -> int:
        """Return the ticket as an integer above zero."""
        return (self.number << _SLOT_BITS | self.slot) << 1 | self.early


def unpack(ticket: int) -> Ticket:
    """Read a ticket back."""
    early = bool(ticket & 1)
    rest = ticket >> 1
    return Ticket(rest >> _SLOT_BITS, rest & ((1 << _SLOT_BITS) - 1), early)
