"""Microseconds per message that the SQLite engine costs, beside bare SQLite on the same disk.

Run `python bench/engine_sqlite.py [directory]`; the directory should be on the disk that is to be measured.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from umbel.core.message import Message, Record, Settlement
from umbel.engine.seam import Engine, Lease
from umbel.engines.sqlite import open_engine

HEAD = b"h" * 520
BODY = b"b" * 70
META = b"m" * 200
ROUNDS = 3


def batch(tag: str, size: int) -> list[Message]:
    # As ids of real tasks do, these begin with the time.
    base = time.time_ns()
    return [
        Message(f"{base + n:016x}-{tag}-{n:014x}"[:36], "project.tasks.add", "celery", HEAD, BODY) for n in range(size)
    ]


def publish(engine: Engine, size: int, total: int) -> float:
    assert engine.broker is not None
    batches = [batch(f"p{n}", size) for n in range(total // size)]
    began = time.perf_counter()
    for messages in batches:
        engine.broker.publish(messages, time.time())
    return (time.perf_counter() - began) / total * 1e6


def stock(engine: Engine, total: int) -> None:
    """Leave exactly `total` ready messages, so that every drain meets a queue of its own length."""
    assert engine.broker is not None
    engine.broker.purge(["celery"])
    for n in range(0, total, 1000):
        engine.broker.publish(batch(f"d{n}", min(1000, total - n)), time.time())


def drain(engine: Engine, size: int, total: int, *, results: bool) -> dict[str, float]:
    assert engine.broker is not None
    assert engine.atomic is not None
    stock(engine, total)
    lease = Lease(("celery",), "bench", size, 30.0)
    spent = dict.fromkeys(("lease", "start", "settle"), 0.0)
    for _ in range(total // size):
        now = time.time()
        t0 = time.perf_counter()
        taken = engine.broker.lease(lease, now)
        assert len(taken) == size, "the queue ran dry"
        t1 = time.perf_counter()
        engine.broker.start("bench", [(item.tag, item.token, 1) for item in taken], now)
        t2 = time.perf_counter()
        expires = now + 86400
        ends = [
            Settlement(item.tag, item.token, record=Record(item.id, "SUCCESS", META, expires) if results else None)
            for item in taken
        ]
        engine.atomic.commit("bench", ends, now)
        t3 = time.perf_counter()
        for name, seconds in zip(spent, (t1 - t0, t2 - t1, t3 - t2), strict=True):
            spent[name] += seconds
    return {name: seconds / total * 1e6 for name, seconds in spent.items()}


def bare(folder: Path, size: int, total: int) -> float:
    connection = sqlite3.connect(folder / f"bare{size}-{time.time_ns()}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE t (seq INTEGER PRIMARY KEY, data BLOB)")
    began = time.perf_counter()
    for _ in range(total // size):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t (data) VALUES (?)", [(HEAD + BODY,)] * size)
        connection.execute("COMMIT")
    spent = (time.perf_counter() - began) / total * 1e6
    connection.close()
    return spent


def measured(run: Callable[[], float]) -> str:
    values = [run() for _ in range(ROUNDS)]
    return f"{statistics.median(values):7.1f}  ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        engine = open_engine(f"sqlite:///{folder}/engine.db", {})
        print("µs per message, median of", ROUNDS)
        for size, total in ((1, 3000), (100, 20000), (1000, 20000)):
            print(f"bare insert, {size:4} a transaction  {measured(lambda: bare(folder, size, total))}")
            print(f"publish,     {size:4} a transaction  {measured(lambda: publish(engine, size, total))}")
        for size, total, results in ((1, 2000, True), (100, 20000, False), (100, 20000, True), (1000, 20000, True)):
            runs = [drain(engine, size, total, results=results) for _ in range(ROUNDS)]
            parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
            text = "  ".join(f"{part} {value:5.1f}" for part, value in parts.items())
            print(f"batches of {size:4}, results {results!s:5}: {text}  sum {sum(parts.values()):5.1f}")
        engine.close()


if __name__ == "__main__":
    main()
