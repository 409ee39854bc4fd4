"""Rules that hold between settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel.core.errors import ImproperlyConfigured

__all__ = ["check_together"]


def check_together(read: Callable[[str], Any]) -> None:
    """Raise `ImproperlyConfigured` where two settings contradict each other; `read` returns the value of a
    setting.
    """
    lease, heartbeat = read("worker_lease"), read("worker_heartbeat")
    if heartbeat >= lease / 2:
        raise ImproperlyConfigured(
            f"worker_heartbeat is {heartbeat:g} s and worker_lease {lease:g} s: a worker could lose its "
            f"leases between two "
            f"heartbeats; set worker_heartbeat to less than {lease / 2:g}, or worker_lease to more than "
            f"{heartbeat * 2:g}"
        )
    soft, hard = read("task_soft_time_limit"), read("task_time_limit")
    if soft and hard and soft > hard:
        raise ImproperlyConfigured(
            f"task_soft_time_limit is {soft:g} s and task_time_limit {hard:g} s: the soft limit would "
            f"never be met; "
            "make it the smaller of the two"
        )
