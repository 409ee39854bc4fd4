"""Real work on an embedded queue, with kill -9 in the middle. Run it with `make demo`.

One job for every file of Python's own standard library; a third of the way one executor is killed with
SIGKILL, two thirds of the way the whole worker, which is then started again. At the end every job has to have
been done. The exit status is 0 only when that is so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from journal import History
from processes import Worker, kill
from screen import Progress, table

if TYPE_CHECKING:
    from tasks import Found

    from umbel import AsyncResult

ENOUGH = 1_000
PATIENCE = 120.0
ROUND_TRIPS = 200


@dataclass
class Job:
    """What was handed in: the files, and the results that will come."""

    files: list[Path]
    results: list[AsyncResult[Found]]
    submitted_at: float
    submit_seconds: float


def python_files() -> tuple[list[Path], str]:
    """Every source file of the standard library, and where they are from.

    Some systems ship the library without its tests; then the environment's own packages join, to have enough.
    """
    places = [sysconfig.get_path("stdlib")]
    if len(below(places[0])) < ENOUGH:
        places.append(sysconfig.get_path("purelib"))
    return sorted({path for place in places for path in below(place)}), " and ".join(places)


def below(place: str) -> list[Path]:
    """Python files below a folder, without packages that were installed into it."""
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    found = (path for path in Path(place).rglob("*.py") if path.is_file())
    return [path for path in found if not skipped & set(path.relative_to(place).parts)]


def submit(files: Sequence[Path]) -> Job:
    """Hand in one job for each file."""
    from tasks import analyse

    began = time.monotonic()
    at = time.time()
    results = [analyse.delay(number, str(path)) for number, path in enumerate(files)]
    return Job(list(files), results, at, time.monotonic() - began)


def watch(job: Job, worker: Worker, history: History) -> bool:
    """Follow the journal until all is done, and do the killing on the way; False when patience ran out."""
    total = len(job.files)
    progress = Progress(total)
    plan = [(total // 3, kill_an_executor), (total * 2 // 3, kill_the_worker)]
    seen, last_news = 0, time.monotonic()
    while len(history.ends) < total:
        history.read_on()
        progress.show(len(history.ends))
        while plan and len(history.ends) >= plan[0][0]:
            plan.pop(0)[1](worker, history, progress)
        if len(history.ends) > seen:
            seen, last_news = len(history.ends), time.monotonic()
        if time.monotonic() - last_news > PATIENCE or worker.gone:
            progress.note("the worker has ended by itself" if worker.gone else "nothing moves any more")
            return False
        time.sleep(0.02)
    progress.close()
    return not plan


def kill_an_executor(_worker: Worker, history: History, progress: Progress) -> None:
    """Kill a process that is running a job at this moment."""
    while True:
        history.read_on()
        busy = list(history.running)
        if any(kill(process) for process in busy[-1:]):
            history.running.pop(busy[-1])
            progress.note(f"kill -9 {busy[-1]}: an executor, in the middle of a job")
            return


def kill_the_worker(worker: Worker, history: History, progress: Progress) -> None:
    """Kill every process of the worker, and start a new one."""
    count = worker.kill_all()
    history.running.clear()
    progress.note(f"kill -9 of the whole worker ({count} processes); starting it again")
    worker.start_again()


def round_trips(count: int) -> list[float]:
    """Submit the smallest job and wait for its result, one at a time; milliseconds each."""
    from tasks import now

    times = []
    for _ in range(count):
        began = time.perf_counter()
        now.delay().get(timeout=30)
        times.append((time.perf_counter() - began) * 1000)
    return times


def show_findings(found: Sequence[Found]) -> None:
    """Print the ten longest functions and the totals."""
    longest = sorted(found, key=lambda item: (-item["longest_lines"], item["path"]))[:10]
    rows = [(str(item["longest_lines"]), f"{item['longest']}  ({short(item['path'])})") for item in longest]
    print("\nThe ten longest functions\n" + table(("lines", "function"), rows))
    totals = [sum(item[key] for item in found) for key in ("functions", "classes", "lines")]
    print("\n  {:,} functions, {:,} classes, {:,} lines in {:,} files".format(*totals, len(found)))


def short(path: str) -> str:
    """A path as seen from the library's folder, or from where packages are installed."""
    for name in ("purelib", "stdlib"):
        path = path.removeprefix(sysconfig.get_path(name))
    return path.lstrip("/")


def show_proof(job: Job, history: History, found: Sequence[Found]) -> bool:
    """Print submitted against finished, and whether they agree."""
    submitted = len(job.files)
    finished = len(history.ends)
    lost = submitted - finished
    sign = "=" if lost == 0 else "≠"
    right = [item["path"] for item in found] == [str(path) for path in job.files]
    proven = lost == 0 and right and sum(history.ends.values()) >= submitted
    print("\nThe proof, from the journal that the jobs wrote themselves")
    print(f"  submitted {submitted:,} {sign} finished {finished:,}; lost {lost}")
    print(f"  run again {history.run_again}: those that ran, or had not been settled, when a kill came")
    print(f"  results read back: {len(found):,}, {'each the right one' if right else 'NOT what was submitted'}")
    print("  every job survived" if proven else "  FAILED")
    return proven


def demo(folder: Path, executors: int) -> bool:
    """Do all of it in this folder; tell whether the proof holds."""
    os.environ["STDLIB_DEMO_FOLDER"] = str(folder)
    files, places = python_files()
    print(f"{len(files):,} Python files in {places}\nqueue: {folder / 'demo.db'} (SQLite)\n")
    job = submit(files)
    print(f"  submitted {len(files):,} jobs in {job.submit_seconds:.2f} s; {executors} executors")
    history = History(folder / "journal")
    worker = Worker(folder, executors)
    try:
        if not watch(job, worker, history):
            show_proof(job, history, [])
            print(f"  the worker's log: {folder / 'worker.log'}")
            return False
        found = [result.get(timeout=60) for result in job.results]
        seconds = history.last_end - job.submitted_at
        times = round_trips(ROUND_TRIPS)
    finally:
        status = worker.stop()
    show_findings(found)
    cuts = statistics.quantiles(times, n=100)
    print(f"\n  {len(files) / seconds:,.0f} jobs a second over {seconds:.1f} s, both kills included")
    print(f"  submit to result, idle worker: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, {len(times)} tries")
    proven = show_proof(job, history, found)
    if status:
        print(f"  but the worker ended with status {status}")
    return proven and status == 0


def main() -> int:
    """Read the command line; 0 when every job was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--executors", type=int, default=2, help="processes that run jobs (default 2)")
    parser.add_argument("--folder", type=Path, help="keep queue, journal and log there (default: a temporary one)")
    chosen = parser.parse_args()
    if chosen.folder:
        folder = chosen.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty; name a new folder")
        return 0 if demo(folder, chosen.executors) else 1
    folder = Path(tempfile.mkdtemp(prefix="umbel-demo-"))
    proven = demo(folder, chosen.executors)
    if proven:  # else the log is worth reading
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if proven else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the worker was stopped")
