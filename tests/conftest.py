"""What all tests share: property-test profiles, a clean environment, and waiting for facts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.fixtures"]

settings.register_profile(
    "house",
    max_examples=150,
    deadline=None,  # the machine is shared; pytest-timeout watches over the whole test
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile("ci", parent=settings.get_profile("house"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")


# The settings of the developer's own shell stay out of the tests, and of the processes that they start.
for name in [name for name in os.environ if name.startswith(("UMBEL_", "CELERY_"))]:
    del os.environ[name]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give `--dist loadgroup` the groups of these tests."""
    from tests.groups import InGroups

    return InGroups(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Give a function that returns when a condition holds and fails at a deadline."""
    return _wait_until


def _wait_until(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "the condition") -> None:
    """Return as soon as `condition()` is true; fail after so many seconds, naming what never came."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
