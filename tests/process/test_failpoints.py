"""Every failpoint × {killed, refused, delayed beyond the lease, reply lost}: what was promised holds all the same."""

from __future__ import annotations

import pytest

from tests.process.lab import Lab
from tests.process.walk import APART, FAULTS, POINTS, kind_of, walk
from umbel.engine import failpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def cases() -> list[tuple[str, str]]:
    return [(name, fault) for name in failpoints.NAMES if kind_of(name) not in APART for fault in FAULTS]


def test_every_failpoint_has_its_place_in_the_walk() -> None:
    assert {kind_of(name) for name in failpoints.NAMES} == set(POINTS) | APART


@pytest.mark.parametrize(("name", "fault"), cases(), ids=lambda value: value)
def test_no_failpoint_breaks_a_promise(lab: Lab, name: str, fault: str) -> None:
    walk(lab, name, fault)
