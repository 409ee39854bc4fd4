"""Whether a delivery may run: decided from its envelope alone, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from umbel.core.message import Delivery, End, Settlement
from umbel.core.outcome import Kind, Policy, decide
from umbel.worker.tickets import unpack

#: Delay before the k-th offer of an unknown task to other workers (seconds); the last one repeats.
_OFFER_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)


class Admitted(NamedTuple):
    """A delivery and what is to happen to it: run ("" verdict) or be concluded."""

    delivery: Delivery
    verdict: str = ""
    text: str = ""


def verdict_of(delivery: Delivery, now: float, revoked: Collection[str]) -> tuple[str, str]:
    """Return the verdict on a delivery of a known task: "" to run it, else why not."""
    if delivery.id in revoked:
        return "revoked", "revoked"
    if delivery.expires and delivery.expires <= now:
        return "expired", "expired"
    return "", ""


def offer(delivery: Delivery, now: float, patience: float) -> Settlement | None:
    """Return the settlement that offers an unknown task to other workers; None when `patience` seconds are over."""
    spent = sum(_delay(k) for k in range(delivery.offers))
    if spent >= patience:
        return None
    return Settlement(delivery.tag, delivery.token, End.OFFER, due=now + _delay(delivery.offers))


def _delay(offers: int) -> float:
    return _OFFER_DELAYS[min(offers, len(_OFFER_DELAYS) - 1)]


def recovered(
    delivery: Delivery,
    was_started: Callable[[str, int, int], bool],
    policy: Policy | None,
) -> Admitted | Settlement:
    """Say what becomes of a delivery whose former owner died.

    `was_started(owner, slot, number)` knows how far the dead session's executors got. One that had not started
    runs as if nothing had happened. `policy` is None when the task is unknown here.
    """
    if not delivery.ticket:
        return Admitted(delivery)
    ticket = unpack(delivery.ticket)
    if not was_started(delivery.former_owner, ticket.slot, ticket.number):
        return Admitted(delivery)
    return lost(delivery, policy or Policy(), early=ticket.early, text="its worker was killed or its host went down")


def lost(delivery: Delivery, policy: Policy, *, early: bool, text: str) -> Admitted | Settlement:
    """Say what becomes of a delivery whose process died while it ran."""
    if not early:
        effects = decide(Kind.LOST, policy, delivery.crashes)
        if effects.end is End.CRASHED:
            return Settlement(delivery.tag, delivery.token, End.CRASHED)
    return Admitted(delivery, "lost", text)
