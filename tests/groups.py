"""Which tests run in one of the parallel processes, one after the other, because they share what is dear to start.

pytest-xdist's own groups (`xdist_group`) are written into the ids of tests, which pytest 9.2 does not let it do.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

#: Pattern of a test's id → its group; the first that fits counts, and a test without one goes wherever there is room.
GROUPS = (
    (r"^tests/process/test_broker_outages\.py.*\[rabbitmq", "kill a RabbitMQ"),
    (r"^tests/process/test_(rabbitmq_refusals\.py|nested_workflows\.py.*their_rabbitmq)", "reconfigure a RabbitMQ"),
    (r"^tests/interop/test_signatures_of_both\.py", ""),
    (r"^tests/interop/.*(\[rabbitmq|of_a_killed_umbel_worker|fanout)", "fleet on RabbitMQ"),
    (r"^tests/interop/test_quorum_and_rpc\.py", "fleet on RabbitMQ with quorum queues"),
    (r"^tests/interop/", "fleet on Redis"),
)
_GROUPS = [(re.compile(pattern), group) for pattern, group in GROUPS]


def group_of(nodeid: str) -> str:
    """Return the group of a test; its own id where it needs none."""
    found = next((group for pattern, group in _GROUPS if pattern.search(nodeid)), "")
    return found or nodeid


class InGroups(LoadScopeScheduling):
    """Hands out whole groups, the largest first, and all other tests one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
