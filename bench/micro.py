"""How many Python calls of umbel's own code a task costs: to enqueue it, and in the consumer that passes it on.

    python bench/micro.py [--names]

Counted with `sys.setprofile`; the cost of starting up cancels out, because only the difference between a small and a
large run counts. The number of calls hardly depends on the machine, so that it shows what a timing would hide.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from stage import Bench
from systems import UMBEL_COUNTED

#: Only the process that we look for calls this.
CONSUMER = "worker/consumer.py:Consumer.run"
FEW, MANY = 2_000, 12_000
#: Callers need no more than the most frequent.
SHOWN = 40


def client_calls(bench: Bench, size: int) -> int:
    """Calls in a client that enqueues so many tasks."""
    bench.ask("enqueue", size)
    return int(read_counts(bench.folder)[0][0])


def consumer_calls(bench: Bench, size: int) -> tuple[int, str]:
    """Calls in the consumer of a worker that runs so many tasks, and which they were."""
    bench.ask("enqueue", size)
    for path in bench.folder.glob("calls.*"):
        path.unlink()
    with bench.worker():
        bench.wait_done(size)
        # What the last tasks left to do is done by then.
        time.sleep(0.5)
        rows = read_counts(bench.folder)
    for calls, names in rows:
        if CONSUMER in names:
            return calls, names
    raise SystemExit(f"no process called {CONSUMER}; was the consumer renamed?")


def read_counts(folder: Path) -> list[tuple[int, str]]:
    """Calls, and the table of names, for each process that counted."""
    rows = []
    for path in folder.glob("calls.*"):
        first, _, rest = path.read_text().partition("\n")
        rows.append((int(first), rest))
    return rows


def fresh(folder: Path) -> Bench:
    """A bench with counting switched on."""
    folder.mkdir()
    return Bench(UMBEL_COUNTED, sys.executable, f"sqlite:///{folder / 'queue.db'}", folder)


def count(show_names: bool = False) -> dict[str, float]:
    """Calls per enqueue and per task in the consumer."""
    with tempfile.TemporaryDirectory(prefix="bench-micro-") as place:
        folder = Path(place)
        client = [client_calls(fresh(folder / f"client{size}"), size) for size in (FEW, MANY)]
        consumer = [consumer_calls(fresh(folder / f"worker{size}"), size) for size in (FEW, MANY)]
    if show_names:
        print("\n".join(consumer[1][1].splitlines()[:SHOWN]))
    return {
        "calls_per_enqueue": (client[1] - client[0]) / (MANY - FEW),
        "consumer_calls_per_task": (consumer[1][0] - consumer[0][0]) / (MANY - FEW),
    }


def main() -> None:
    """Print the counts as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--names", action="store_true", help="show which functions the consumer called")
    print(json.dumps(count(parser.parse_args().names)))


if __name__ == "__main__":
    main()
