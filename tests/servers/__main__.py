"""`python -m tests.servers` installs the servers that tests need, where it may, and says what is missing."""

from __future__ import annotations

import sys

from tests.servers.install import missing

if __name__ == "__main__":
    for problem in missing("redis-server", "rabbitmq-server"):
        print(f"servers: {problem}", file=sys.stderr)
