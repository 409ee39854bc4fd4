"""Measure umbel and its rivals in interleaved rounds; `make bench`.

Every round runs every system once on every scenario, so that a slow minute of the machine hits all of them. Prints a
table of medians and whether the bars hold, and writes all numbers to bench/results/.
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

from environments import interpreter, redis_server
from report import medians, table, verdicts
from scenarios import SCENARIOS
from stage import Bench
from systems import SYSTEMS, System

HERE = Path(__file__).resolve().parent
SIZE = 20_000
QUICK_SIZE = 2_000


def measure(system: System, scenario: str, size: int) -> dict[str, float]:
    """One scenario on one system, in a fresh folder with a fresh queue."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{system.name}-")))
        if system.on_redis:
            url = stack.enter_context(redis_server(folder))
        else:
            url = f"sqlite:///{folder / 'queue.db'}{system.query}"
        return SCENARIOS[scenario](Bench(system, interpreter(system), url, folder), size)


def rounds(chosen: argparse.Namespace, size: int) -> dict[str, dict[str, list[float]]]:
    """All rounds; measure → system → numbers."""
    results: dict[str, dict[str, list[float]]] = {}
    for number in range(chosen.rounds):
        for scenario in chosen.scenarios:
            for name in chosen.systems:
                if scenario not in SYSTEMS[name].scenarios:
                    continue
                numbers = measure(SYSTEMS[name], scenario, size)
                for key, value in numbers.items():
                    results.setdefault(key, {}).setdefault(name, []).append(value)
                shown = ", ".join(f"{key} {value:,.3g}" for key, value in numbers.items())
                print(f"round {number + 1}  {name:<10} {shown}", flush=True)
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
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZE:,} tasks instead of {SIZE:,}, one round")
    parser.add_argument("--systems", type=lambda text: names(dict(SYSTEMS), text), default=list(SYSTEMS))
    parser.add_argument("--scenarios", type=lambda text: names(dict(SCENARIOS), text), default=list(SCENARIOS))
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds = 1
    size = QUICK_SIZE if chosen.quick else SIZE
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
