"""Measure umbel and its rivals in interleaved rounds; `make bench`.

Every round runs every system once on every scenario, so that a slow minute of the machine hits all of them. Prints a
table of medians and whether the bars hold, and writes all numbers to bench/results/. `--engines redis` (or sqlite,
rabbitmq) takes the systems that are compared on it; what Celery does on Redis is compared on SQLite too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from environments import interpreter
from report import medians, table, verdicts
from scenarios import SCENARIOS
from servers import RabbitMQ, rabbitmq_server, redis_server
from stage import Bench
from systems import SYSTEMS, System

HERE = Path(__file__).resolve().parent
SIZE = 20_000
QUICK_SIZE = 2_000
#: What an app is told where nobody stores results.
NO_RESULTS = {"umbel_app": "disabled", "celery_app": "disabled", "dramatiq_app": ""}
#: The systems that are compared on an engine.
ENGINES = {
    "sqlite": ("umbel", "umbel-full", "huey", "celery"),
    "redis": ("umbel-redis", "celery", "dramatiq", "huey-redis"),
    "rabbitmq": ("umbel-rabbitmq", "celery-rabbitmq", "dramatiq-rabbitmq", "dramatiq-1-rabbitmq"),
}


class Runner:
    """Runs single measurements; the one RabbitMQ that they share is started when it is first needed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._rabbitmq: RabbitMQ | None = None

    def measure(self, system: System, scenario: str, size: int) -> dict[str, float]:
        """One scenario on one system, in a fresh folder with a fresh queue."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{system.name}-")))
            url, results = self._urls(system, scenario, folder, stack)
            return SCENARIOS[scenario](Bench(system, interpreter(system), url, folder, results), size)

    def _urls(self, system: System, scenario: str, folder: Path, stack: ExitStack) -> tuple[str, str]:
        """Where the messages of a measurement are, and where its results."""
        if system.server == "redis":
            url = stack.enter_context(redis_server(folder))
            return url, url
        if system.server == "rabbitmq":
            if self._rabbitmq is None:
                place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rabbitmq-")))
                self._rabbitmq = self._stack.enter_context(rabbitmq_server(place))
            # All of them keep results in Redis, so that the broker is what differs.
            results = stack.enter_context(redis_server(folder)) if scenario == "latency" else ""
            return self._rabbitmq.new_vhost(), results or NO_RESULTS[system.app]
        url = f"sqlite:///{folder / 'queue.db'}{system.query}"
        return url, url


def rounds(chosen: argparse.Namespace, size: int) -> dict[str, dict[str, list[float]]]:
    """All rounds; measure → system → numbers."""
    results: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        runner = Runner(stack)
        for number in range(chosen.rounds):
            for scenario in chosen.scenarios:
                for name in chosen.systems:
                    if scenario not in SYSTEMS[name].scenarios:
                        continue
                    numbers = runner.measure(SYSTEMS[name], scenario, size)
                    for key, value in numbers.items():
                        results.setdefault(key, {}).setdefault(name, []).append(value)
                    shown = ", ".join(f"{key} {value:,.3g}" for key, value in numbers.items())
                    print(f"round {number + 1}  {name:<19} {shown}", flush=True)
    return results


def machine() -> dict[str, str | int | None]:
    """What the numbers were measured on."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def names(known: dict[str, object], text: str) -> list[str]:
    """A comma-separated choice of known names; an unknown one is an error."""
    chosen = [name for name in text.split(",") if name] or list(known)
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return chosen


def main() -> int:
    """Read the command line, measure, report; 0 when every bar that was measured holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZE:,} tasks and one round")
    parser.add_argument("--tasks", type=int, default=SIZE, help=f"how many tasks a measurement has ({SIZE:,})")
    parser.add_argument("--systems", type=lambda text: names(dict(SYSTEMS), text), default=list(SYSTEMS))
    parser.add_argument("--scenarios", type=lambda text: names(dict(SCENARIOS), text), default=list(SCENARIOS))
    parser.add_argument("--engines", type=lambda text: names(dict(ENGINES), text))
    chosen = parser.parse_args()
    if chosen.engines:
        wanted = [name for engine in chosen.engines for name in ENGINES[engine]]
        ours = {scenario for name in wanted if name.startswith("umbel") for scenario in SYSTEMS[name].scenarios}
        chosen.systems = [name for name in chosen.systems if name in wanted]
        chosen.scenarios = [name for name in chosen.scenarios if name in ours]
    if chosen.quick:
        chosen.rounds = 1
    size = QUICK_SIZE if chosen.quick else chosen.tasks
    facts = machine() | {"tasks": size, "rounds": chosen.rounds}
    print("  ".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    results = rounds(chosen, size)
    text, good = verdicts(results)
    print(f"\n{table(results)}\n\n{text}")
    place = HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.local.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"machine": facts, "medians": medians(results), "rounds": results}, indent=1))
    print(f"\n{place.relative_to(HERE.parent)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
